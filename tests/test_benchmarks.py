"""The benchmarks run, their sides compute the same, and their arithmetic is right. Nothing here looks at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # benchmarks are not installed; last, so that a gluonish that is installed comes first

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import peak, report  # noqa: E402
from benchmarks.measure import Run, Settings  # noqa: E402
from benchmarks.neighbour import Neighbour  # noqa: E402
from benchmarks.outcome import Outcome, Timing, reached_together  # noqa: E402
from benchmarks.peers import Peer, PeerError, processors  # noqa: E402
from benchmarks.row import MAIN, ROWS, Bar, Row, Side, difference  # noqa: E402
from benchmarks.rows import cnn  # noqa: E402
from benchmarks.timing import Timer  # noqa: E402
from gluonish import demo, nd  # noqa: E402
from gluonish.kernels import target  # noqa: E402

WIDTH = 120
TINY = Settings(rounds=2, seconds=0.0, tiny=True)


@pytest.fixture(scope="module")
def tiny_run() -> Iterator[Run]:
    """Libraries in their processes: NumPy, and torch for rows that NumPy has no side of."""
    with Run([MAIN, "numpy", *(["torch"] if find_spec("torch") else [])], TINY) as run:
        yield run


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.example])
def test_every_row_runs_and_its_sides_agree(name: str, tiny_run: Run) -> None:
    outcome = tiny_run.measure(ROWS[name])
    assert MAIN in outcome.sides
    for side, timing in outcome.sides.items():
        assert not timing.problem, timing.problem
        assert len(timing.samples) == TINY.rounds and min(timing.samples) > 0, side
    assert not outcome.wrong, outcome.sides
    assert all(len(line) <= WIDTH for line in report.table(outcome).splitlines())


def test_every_bar_names_a_side() -> None:
    for row in ROWS.values():
        assert MAIN in row.sides
        assert all(bar.against in row.sides for bar in row.bars), row.name


def test_the_other_libraries_train_the_network_of_the_demo() -> None:
    net = demo.digits_net()
    net.initialize()
    net(nd.zeros((1, 1, 8, 8)))
    shapes = [p.shape for name, p in net.collect_params().items() if name.endswith("weight")]
    assert shapes == [w.shape for w in cnn.weights(cnn.STEP.sizes)]
    kinds = {"Conv2D": "conv", "BatchNorm": "norm", "Activation": "relu", "MaxPool2D": "pool", "Dense": "dense"}
    found = []
    for layer in net:
        kind = type(layer).__name__
        found.append(kinds.get(kind, kind.lower()))
        found += ["relu"] if kind == "Dense" and layer.activation else []
    assert found == [kind for kind, _ in cnn.LAYERS]
    rates = [layer.rate for layer in net if hasattr(layer, "rate")]
    assert rates == [value for kind, value in cnn.LAYERS if kind == "dropout"]


@pytest.mark.parametrize("level", target.available())
def test_the_peak_loop_does_its_arithmetic(level: str) -> None:
    with target.use(target.named(level)) as machine:
        loop, flops, results = peak.peak_loop(turns=3)
        loop()
    accumulators = machine.registers - peak.SPARED
    wanted = sum((1 + i / 32) / 8 + 1.75 for i in range(accumulators))  # x -> x / 2 + 1, three times
    np.testing.assert_allclose(results, wanted, rtol=1e-6)
    assert flops == 2 * 3 * peak.TILES * accumulators * machine.vector_bytes // 4


def test_differences_are_seen() -> None:
    right = [np.array([1.0, -4.0]), np.zeros(2)]
    assert difference(right, right) == 0
    assert difference([np.array([1.0, -3.0]), np.zeros(2)], right) == 0.25
    assert difference([np.array([np.nan, -4.0]), np.zeros(2)], right) == np.inf
    assert difference([np.array([[1.0, -4.0]]), np.zeros(2)], right) == np.inf
    assert difference(right[:1], right) == np.inf


def _outcome(main: float, other: float, bar: Bar, flops: tuple[float, float] = (1.0, 1.0)) -> Outcome:
    row = Row("for a test", "", bars=(bar,))
    ROWS.pop(row.name)
    sides = {MAIN: Timing(samples=[main] * 3, flops=flops[0]), bar.against: Timing(samples=[other] * 3, flops=flops[1])}
    return Outcome(row, sides)


def test_bars_are_judged() -> None:
    bar = Bar("torch", 0.5)
    assert _outcome(1.0, 2.0, bar).met(bar)
    assert not _outcome(1.1, 2.0, bar).met(bar)
    rate = Bar("peak", 0.8, "rate")
    assert _outcome(1.0, 1.0, rate, (80.0, 100.0)).reached(rate) == pytest.approx(0.8)
    assert _outcome(2.0, 1.0, rate, (180.0, 100.0)).met(rate)
    assert not _outcome(2.0, 1.0, rate, (150.0, 100.0)).met(rate)
    busy = Bar("torch", 3.0, "busy")
    outcome = _outcome(1.0, 1.0, busy)
    assert outcome.met(busy) is None
    outcome.alone, outcome.beside = {"torch": Timing(samples=[1.0, 3.0])}, {"torch": Timing(samples=[4.0, 8.0])}
    assert outcome.reached(busy) == 3.0 and outcome.met(busy)


def test_a_common_bar_is_judged_over_all_its_rows() -> None:
    bar = Bar("torch", 0.5, together="both")
    some = [_outcome(1.0, 1.0, bar), _outcome(1.0, 9.0, bar)]
    assert reached_together(some, bar) == pytest.approx(0.2)
    assert "1 of 1 bars met" in report.summary(some) and "met: both: 0.20" in report.summary(some)
    rate = Bar("peak", 0.8, "rate", "both")
    some = [_outcome(1.0, 1.0, rate, (60.0, 100.0)), _outcome(1.0, 1.0, rate, (90.0, 100.0))]
    assert reached_together(some, rate) == pytest.approx(0.75) and "missed: both: 0.75" in report.summary(some)
    some[1].sides["peak"].samples.clear()
    assert reached_together(some, rate) is None and "1 not measured" in report.summary(some)


def test_wrong_results_are_reported() -> None:
    bar = Bar("torch", 0.5)
    outcome = _outcome(1.0, 4.0, bar)
    outcome.sides["torch"].differs = 0.5
    assert outcome.wrong == ["torch"]
    assert "WRONG RESULTS: for a test: torch" in report.summary([outcome])


def test_a_timer_counts_calls_and_waits_at_the_end() -> None:
    done: list[str] = []
    timer = Timer(Side(lambda: done.append("call"), finish=lambda: done.append("finish")))
    assert timer.run(3) > 0
    assert done == ["call"] * 3 + ["finish"]
    timer = Timer(Side(lambda: None, statement="mark('statement')", names={"mark": done.append}))
    timer.sample(1)
    assert done[4:] == ["statement"]


def test_a_failing_side_leaves_its_process_usable(tmp_path: Path) -> None:
    with Peer("numpy", 1, tmp_path / "log") as peer:
        assert peer.ask("start")["version"] == np.__version__
        with pytest.raises(PeerError, match="numpy: KeyError: 'no such row'"):
            peer.ask("prepare", row="no such row", side="numpy", tiny=True, results="")
        assert peer.ask("forget") == {} and peer.alive


def test_the_death_of_a_process_is_told(tmp_path: Path) -> None:
    with Peer("numpy", 1, tmp_path / "log") as peer:
        peer.ask("start")
        os.kill(peer.process_id, signal.SIGKILL)
        with pytest.raises(PeerError, match="its process ended"):
            peer.ask("forget")
        assert not peer.alive


def test_a_neighbour_ends_with_its_block() -> None:
    with Neighbour(processors(2)) as neighbour:
        neighbour.busy()
        neighbour.quiet()
        neighbour.busy()
        process = neighbour.process
        assert process.poll() is None
    assert process.poll() is not None


def test_the_command_writes_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    settings = replace(TINY, busy=True)
    assert command.run([ROWS["mlp-forward"]], settings, [MAIN, "numpy"], file) == 0
    shown = capsys.readouterr().out
    assert "mlp-forward: MLP" in shown and "beside a busy process" in shown and "bars met" in shown
    found = json.loads(file.read_text())
    side = found["rows"]["mlp-forward"]["sides"]["numpy"]
    assert len(side["samples"]) == 2 and side["ratio"] > 0 and side["differs"] < 1e-4
    assert found["versions"]["numpy"] == np.__version__


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert "installed: gluonish" in capsys.readouterr().out
    assert command.main(["--rows", "no-such-row"]) == 2
    assert "no row is called no-such-row; there are add, " in capsys.readouterr().err
    asked = [sys.executable, "-m", "benchmarks", "--list"]
    shown = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all((f"{name} " in shown) == (row.group == "core") for name, row in ROWS.items())
