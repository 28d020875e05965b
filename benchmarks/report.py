"""The table and the JSON of a run."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Settings
from benchmarks.outcome import Outcome, Timing, reached_together, reaches
from benchmarks.peers import processors
from benchmarks.row import MAIN, Bar

_HEADS = (
    f"  {'side':18}{'median':>12}{'spread':>9}{'GFLOP/s':>10}",
    f"{'first call':>13}{'differs':>10}{'gluonish/side':>15}  bar",
)
_WORTH_TELLING = 0.1  # processors that others took


def table(outcome: Outcome) -> str:
    """The lines of one row."""
    row = outcome.row
    lines = [f"{row.name}: {row.about}", *_others(outcome), "".join(_HEADS)]
    lines += [_side(outcome, name, timing) for name, timing in outcome.sides.items()]
    for name in outcome.beside:
        ratio = outcome.disturbed(name)
        bars = [bar for bar in row.bars if bar.kind == "busy" and bar.against == name]
        text = f"  {name}, beside a busy process: {duration(outcome.beside[name].median)}, alone "
        lines.append(text + f"{duration(outcome.alone[name].median)}, ratio {ratio:.2f}  {_bars(outcome, bars)}")
    return "\n".join(line.rstrip() for line in lines)


def _others(outcome: Outcome) -> list[str]:
    taken = outcome.disturbance
    return [f"  [DISTURBED: other processes took {taken:.1f} processors meanwhile]"] if taken > _WORTH_TELLING else []


def _side(outcome: Outcome, name: str, timing: Timing) -> str:
    if timing.problem or not timing.samples:
        return f"  {name:18}{timing.problem or 'not measured':.100}"
    rate = f"{timing.rate / 1e9:.1f}" if timing.rate else ""
    ratio = outcome.ratio(name)
    differs = "" if timing.differs is None else f"{timing.differs:.0e}" + ("!" if name in outcome.wrong else "")
    bars = [bar for bar in outcome.row.bars if bar.kind != "busy" and bar.against == name]
    share = f"{ratio:.2f}" if ratio is not None and name != MAIN else ""
    return (
        f"  {name:18}{duration(timing.median):>12}{timing.spread:>8.0%} {rate:>10}"
        f"{duration(timing.first):>13}{differs:>10}{share:>15}  {_bars(outcome, bars)}"
    )


def _bars(outcome: Outcome, bars: Iterable[Bar]) -> str:
    return ", ".join(_bar(outcome, bar) for bar in bars)


def _bar(outcome: Outcome, bar: Bar) -> str:
    met = outcome.met(bar)
    if bar.together:
        reached = outcome.reached(bar)
        return f"{'' if reached is None or bar.kind != 'rate' else f'{reached:.0%} of it, '}in a common bar"
    verdict = "not measured" if met is None else "met" if met else "MISSED"
    if bar.kind == "rate":
        reached = outcome.reached(bar)
        return f"{'' if reached is None else f'{reached:.0%} of it, '}bar {bar.limit:.0%}: {verdict}"
    return f"bar {bar.limit:.2f}: {verdict}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many bars are met, which are not, and whose results are wrong."""
    verdicts = [
        (outcome.row.name, bar, outcome.reached(bar))
        for outcome in outcomes
        for bar in outcome.row.bars
        if not bar.together
    ]
    common = {bar.together: bar for outcome in outcomes for bar in outcome.row.bars if bar.together}
    for name, bar in common.items():
        verdicts.append((name, bar, reached_together([o for o in outcomes if bar in o.row.bars], bar)))
    met = sum(1 for _, bar, reached in verdicts if reaches(reached, bar))
    unknown = sum(1 for _, _, reached in verdicts if reached is None)
    lines = [f"{met} of {len(verdicts)} bars met, {unknown} not measured"]
    disturbed = sum(1 for outcome in outcomes if outcome.disturbance > _WORTH_TELLING)
    if disturbed:
        lines.append(f"  {disturbed} of {len(outcomes)} rows were DISTURBED by other processes: measure them again")
    reasons = {outcome.row.name: outcome.row.reason for outcome in outcomes}
    for name, bar, reached in verdicts:
        if bar.together and reached is not None or reaches(reached, bar) is False:
            what = "its own time alone" if bar.kind == "busy" else f"the {bar.kind} of {bar.against}"
            verdict = "met" if reaches(reached, bar) else "missed"
            lines.append(f"  {verdict}: {name}: {reached:.2f} of {what}, bar {bar.limit:.2f}")
            reason = reasons.get(name)
            if reason and bar.kind != "busy" and verdict == "missed":
                lines.append(f"    known: {reason}")
    for outcome in outcomes:
        lines += [f"  WRONG RESULTS: {outcome.row.name}: {name} differs from gluonish" for name in outcome.wrong]
        lines += [f"  failed: {outcome.row.name}: {t.problem:.90}" for t in outcome.sides.values() if t.problem]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 999.5 else f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def machine(settings: Settings) -> dict[str, Any]:
    """What the figures depend on besides the software."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "threads": settings.threads,
        "pinned_to": processors(settings.threads),
        "load_before": load,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_json(outcomes: Sequence[Outcome], settings: Settings, about: dict[str, Any], versions: dict[str, str]) -> str:
    """Everything measured, samples included."""
    return json.dumps(
        {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": about,
            "settings": asdict(settings),
            "versions": versions,
            "rows": {outcome.row.name: _row(outcome) for outcome in outcomes},
        },
        indent=1,
    )


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "about": outcome.row.about,
        "others": outcome.others,
        "sides": {name: {**_timing(t), "ratio": outcome.ratio(name)} for name, t in outcome.sides.items()},
        "alone": {name: _timing(t) for name, t in outcome.alone.items()},
        "beside_busy_process": {
            name: {**_timing(t), "ratio": outcome.disturbed(name)} for name, t in outcome.beside.items()
        },
        "bars": [{**asdict(b), "reached": outcome.reached(b), "met": outcome.met(b)} for b in outcome.row.bars],
    }


def _timing(timing: Timing) -> dict[str, Any]:
    if not timing.samples:
        return asdict(timing)
    found = {"median": timing.median, "quartiles": timing.quartiles, "flops_per_second": timing.rate}
    return {**asdict(timing), **found}
