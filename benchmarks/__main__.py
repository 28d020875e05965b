"""`python -m benchmarks`: see README.md beside this file."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    accuracy,
    report,
    rows,  # noqa: F401  (declares the rows)
)
from benchmarks.measure import Run, Settings
from benchmarks.peers import MXNET_PYTHON, installed
from benchmarks.row import MAIN, ROWS, Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for. 0 if gluonish ran every row and agrees with the others, else 1; 2: a wrong request."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments[:1]) == ["accuracy"]:
        return accuracy.main(arguments[1:])
    chosen = _parser().parse_args(arguments)
    wanted = chosen.group if chosen.rows == "*" else "all"
    selected = [row for row in ROWS.values() if wanted in (row.group, "all") and _matches(row.name, chosen.rows)]
    if chosen.list:
        for row in selected:
            print(f"{row.name:22}{row.about}\n{'':22}{', '.join(row.sides)}")
        print(f"installed: {', '.join(installed())}")
        return 0
    if not selected:
        print(f"benchmarks: no row is called {chosen.rows}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    quick: dict[str, Any] = {"rounds": 5, "seconds": 0.005} if chosen.quick else {}
    settings = Settings(threads=chosen.threads, busy=chosen.busy, compiled=chosen.compile, **quick)
    return run(selected, settings, _peers(chosen.peers), chosen.json)


def run(selected: Sequence[Row], settings: Settings, peers: Sequence[str], file: Path | None) -> int:
    """Measures the rows, prints the table as it grows, writes the JSON."""
    about = report.machine(settings)
    print(f"{about['processor']}, {settings.threads} threads on processors {about['pinned_to']}: {', '.join(peers)}")
    outcomes = []
    try:
        with Run(peers, settings) as started:
            for row in selected:
                outcomes.append(started.measure(row))
                print(f"\n{report.table(outcomes[-1])}", flush=True)
    except KeyboardInterrupt:
        print("benchmarks: interrupted; what is finished counts", file=sys.stderr)
    print(f"\n{report.summary(outcomes)}")
    if file is not None:
        file.write_text(report.as_json(outcomes, settings, about, started.versions) + "\n")
    broken = [o for o in outcomes if o.wrong or MAIN not in o.sides or o.sides[MAIN].problem]
    return 1 if broken or len(outcomes) < len(selected) else 0


def _parser() -> argparse.ArgumentParser:
    about = "gluonish side by side with other libraries."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=about)
    add = parser.add_argument
    groups = [*dict.fromkeys(row.group for row in ROWS.values()), "all"]
    add("group", nargs="?", default="core", choices=groups, help="which rows, unless --rows says (default: core)")
    add("--rows", default="*", metavar="PATTERN", help="rows to run, such as 'mlp*,conv'")
    add("--threads", type=int, default=2, metavar="N", help="threads of every library (default: 2)")
    add("--peers", default="*", metavar="PATTERN", help="libraries to compare with (default: all installed)")
    add("--compile", action="store_true", help="torch.compile too (slow to start, needs a C++ compiler)")
    add("--busy", action="store_true", help="also time the rows that ask for it beside a busy process")
    add("--quick", action="store_true", help="fewer and shorter samples: a first impression")
    add("--json", type=Path, metavar="FILE", help="write everything measured to a file")
    add("--list", action="store_true", help="show rows, sides and libraries, run nothing")
    parser.epilog = "`python -m benchmarks accuracy` measures errors instead of times: see its own --help. "
    parser.epilog += f"{MXNET_PYTHON} names the Python interpreter of an environment that has MXNet."
    return parser


def _peers(pattern: str) -> list[str]:
    return [peer for peer in installed() if peer == MAIN or _matches(peer, pattern)]


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


if __name__ == "__main__":
    sys.exit(main())
