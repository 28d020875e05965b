"""`gluonish demo` does the whole job, and answers mistakes with one line."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gluonish import __main__ as command
from gluonish import data, demo, draw, nd, random

ROOT = Path(demo.__file__).resolve().parent.parent


def _environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def _run(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    asked, environment = [sys.executable, "-m", "gluonish", *arguments], _environment(**changes)
    return subprocess.run(asked, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@dataclass
class Outcome:
    folder: Path
    output: str
    errors: str
    seconds: float  # of processor time: what a neighbour does to the clock is not the demo's fault


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The demo as a new user runs it: no options, no kernels in the cache."""
    folder = tmp_path_factory.mktemp("demo")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _run("demo", cwd=folder, GLUONISH_CACHE=str(tmp_path_factory.mktemp("cache")))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(folder, done.stdout, done.stderr, seconds)


def test_it_learns_the_digits(outcome: Outcome) -> None:
    found = re.search(r"^test accuracy +([\d.]+) % \((\d+) of 359 images\)$", outcome.output, re.MULTILINE)
    assert found and float(found[1]) >= 98
    assert float(found[1]) == pytest.approx(100 * int(found[2]) / 359, abs=0.006)


def test_it_is_done_within_a_minute(outcome: Outcome) -> None:
    assert outcome.seconds < 60


def test_it_compares_the_two_kinds_of_epoch(outcome: Outcome) -> None:
    found = re.search(r"^an epoch +eager ([\d.]+) s, hybridized ([\d.]+) s", outcome.output, re.MULTILINE)
    assert found and float(found[2]) < float(found[1])


def test_the_bar_shows_loss_and_accuracy(outcome: Outcome) -> None:
    last = outcome.errors.replace("\r", "\n").strip().splitlines()[-1]
    assert re.search(r"epoch 24/24 hybridized 100% .* 552/552 .*loss 0\.\d+, accuracy \d+\.\d %", last)


def test_it_writes_the_model_and_the_pictures_and_nothing_else(outcome: Outcome) -> None:
    names = {"digits-model.json", "digits-model.safetensors", "digits-learning-curve.svg", "digits-predictions.svg"}
    assert {path.name for path in outcome.folder.iterdir()} == names
    assert all(name in outcome.output for name in names)
    assert "fresh process  loads the exported model and gives the same predictions" in outcome.output


def test_the_pictures_show_the_run(outcome: Outcome) -> None:
    curve = ElementTree.parse(outcome.folder / "digits-learning-curve.svg").getroot()
    assert sum(element.tag.endswith("circle") for element in curve.iter()) == 4 * demo.Settings().epochs
    grid = (outcome.folder / "digits-predictions.svg").read_text()
    right = int(re.search(r"\((\d+) of 359", outcome.output)[1])  # type: ignore[index]
    assert f"{right} of 359 test images are right" in grid
    assert grid.count(", is ") == min(359 - right, demo._SHOWN)


def test_the_exported_model_is_the_one_that_was_measured(outcome: Outcome) -> None:
    import gluonish as gl

    net = gl.SymbolBlock.imports(str(outcome.folder / "digits-model"))
    images, labels = data.digits_split()[1][:]
    right = int((net(images).asnumpy().argmax(1) == labels.asnumpy()).sum())
    assert f"({right} of 359 images)" in outcome.output


def test_the_seed_decides_the_run() -> None:
    def losses(seed: int) -> list[float]:
        random.seed(seed)
        train, test = (data.ArrayDataset(*part[:200]) for part in data.digits_split())
        return demo.fit(demo.digits_net(), train, test, demo.Settings(epochs=2, quiet=True)).loss

    assert losses(1) == losses(1) != losses(2)


# --- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments, said",
    [
        (["demo", "--epochs", "1"], "argument --epochs: needs a whole number from 2 up, got '1'"),
        (["demo", "--epochs", "many"], "argument --epochs: needs a whole number from 2 up, got 'many'"),
        (["demo", "--batch-size", "0"], "argument --batch-size: needs a whole number from 1 up, got '0'"),
        (["demo", "--batch-size", "2000"], "a batch of 2000 is more than the 1438 training images"),
        (["demo", "--seed", "-1"], "argument --seed: needs a whole number from 0 up, got '-1'"),
        (["demo", "--sed", "1"], "unrecognized arguments: --sed 1"),
        (["demo", "--output"], "argument --output: expected one argument"),
        (["dome"], "invalid choice: 'dome'"),
        (["cache", "burn"], "invalid choice: 'burn'"),
        ([], "COMMAND"),
    ],
)
def test_bad_options_give_one_line_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = _run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and said in done.stderr and done.stderr.startswith("gluonish")
    assert done.stdout == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file/inside", "file", "/proc/nothing-can-be-made-here", "x" * 300])
def test_a_folder_that_cannot_be_written_gives_one_line_and_status_2(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert command.main(["demo", "--output", str(tmp_path / place)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"gluonish demo: cannot write to the folder {tmp_path / place}: ")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_forbidden_folder_gives_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert command.main(["demo", "--output", str(tmp_path)]) == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo without its training: what surrounds it is to be tried."""

    def fit(net: object, train: object, test: object, settings: object) -> demo.History:
        net.initialize()  # type: ignore[attr-defined]
        net.hybridize()  # type: ignore[attr-defined]
        return demo.History([0.5], [0.5], [0.5], [0.5], [2.0, 0.5])

    monkeypatch.setattr(demo, "fit", fit)


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_gives_one_line_and_status_2(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(draw.Picture, "save", _full_disk)
    assert command.main(["demo", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"gluonish demo: cannot write to the folder {tmp_path}: No space left on device\n"


def _other_scores(model: Path) -> bytes:
    return np.zeros((359, 10), np.float32).tobytes()


def _too_few_scores(model: Path) -> bytes:
    return b""


def _slightly_other_scores(model: Path, ask: Callable[[Path], bytes] = demo._fresh_process) -> bytes:
    return (np.frombuffer(ask(model), np.float32) + np.float32(0.01)).tobytes()


@pytest.mark.parametrize("answer", [_other_scores, _too_few_scores, _slightly_other_scores])
def test_an_export_that_predicts_otherwise_is_noticed(
    answer: Callable[[Path], bytes],
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "_fresh_process", answer)
    assert command.main(["demo", "--output", str(tmp_path)]) == 1
    assert "does not give the predictions of the network" in capsys.readouterr().err


def test_the_seed_option_is_used(quick: None, tmp_path: Path) -> None:
    def weights(seed: str) -> bytes:
        assert command.main(["demo", "--seed", seed, "--output", str(tmp_path)]) == 0
        return (tmp_path / "digits-model.safetensors").read_bytes()

    assert weights("3") == weights("3") != weights("4")


def test_an_export_that_cannot_be_loaded_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match=r"a fresh process could not run .*nowhere\.json: .*nowhere"):
        demo._fresh_process(tmp_path / "nowhere")


@pytest.mark.parametrize("sign", ["hybridized\n", "epoch 1/"])  # before and in training
def test_an_interruption_gives_one_line_and_status_130(sign: str, tmp_path: Path) -> None:
    asked = [sys.executable, "-um", "gluonish", "demo"]
    process = subprocess.Popen(
        asked, cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdout is not None
    seen = b""
    while sign.encode() not in seen:
        part = process.stdout.read(1)
        assert part, seen.decode()
        seen += part
    process.send_signal(signal.SIGINT)
    seen += process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert seen.decode().endswith("\ngluonish: interrupted\n") and b"Traceback" not in seen


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    shell = ["bash", "-c", f"{sys.executable} -m gluonish cache info | true; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141) and done.stderr == ""


# --- the rest of the command ------------------------------------------------------------------------------------------
def test_help_tells_every_option_and_status(tmp_path: Path) -> None:
    text = _run("demo", "--help", cwd=tmp_path).stdout
    for option in ("--epochs N", "--batch-size N", "--seed N", "--output DIR", "--quiet"):
        assert option in text
    assert "default: 24" in text and "Exit status" in text and "130" in text
    assert "demo" in _run("--help", cwd=tmp_path).stdout


def test_cache_shows_and_empties_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLUONISH_CACHE", str(tmp_path))
    (tmp_path / "a.kernel").write_bytes(b"x" * 20_000)
    (tmp_path / "mine.txt").write_text("not a kernel")
    for action, said in (("info", "holds 1"), ("clear", "removed 1"), ("info", "holds 0")):
        assert command.main(["cache", action]) == 0
        assert capsys.readouterr().out.startswith(f"{tmp_path}: {said} compiled kernels")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_wrong_predictions_come_first_in_the_grid() -> None:
    labels = np.arange(60) % 10
    scores = np.eye(10, dtype=np.float32)[labels]
    scores[[57, 59]] = 0
    scores[[57, 59], 1] = 1
    svg = demo.predictions_picture(nd.zeros((60, 1, 8, 8)), scores, nd.array(labels)).svg
    captions = re.findall(r">(\d(?:, is \d)?)</text>", svg)
    assert captions[:3] == ["1, is 7", "1, is 9", "0"] and len(captions) == demo._SHOWN
