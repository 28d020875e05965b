"""The main job on real images, as `gluonish demo` runs it: learn handwritten digits, deploy the model, show the result.

One epoch is trained eagerly and the others hybridized, so that both times can be compared. The exported model is loaded
by a process that knows nothing of the network's Python code. Deliberately not here: the command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from gluonish import (
    NDArray,
    Trainer,
    __version__,
    autograd,
    data,
    draw,
    get_num_threads,
    init,
    loss,
    metric,
    nn,
    random,
)

MODEL, CURVE, GRID = "digits-model", "digits-learning-curve.svg", "digits-predictions.svg"
_SHOWN = 50  # images in the grid
_PEAK_RATE = 3e-3
_CHILD = """
import sys
import gluonish as gl
_, test = gl.data.digits_split()
net = gl.SymbolBlock.imports(sys.argv[1])
net.hybridize()
sys.stdout.buffer.write(net(test[:][0]).asnumpy().tobytes())
"""


class DemoError(Exception):
    """What went wrong, in one line for the user; `code` is the exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Settings:
    """What a user can choose."""

    epochs: int = 24
    batch_size: int = 64
    seed: int = 0
    output: Path = Path(".")
    quiet: bool = False


@dataclass
class History:
    """What was measured, one value per epoch."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def picture(self) -> draw.Picture:
        """Loss and accuracy over the epochs."""
        panels = {
            "loss": {"training": self.loss, "test": self.test_loss},
            "accuracy in %": {
                "training": [100 * a for a in self.accuracy],
                "test": [100 * a for a in self.test_accuracy],
            },
        }
        return draw.learning_curve(panels, title="Learning handwritten digits")


def digits_net() -> nn.HybridSequential:
    """A small convolutional network, not yet initialized. Shapes: (N, 1, 8, 8) -> (N, 10)."""
    net = nn.HybridSequential()
    for channels in (32, 64):
        net.add(nn.Conv2D(channels, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"))
    net.add(nn.MaxPool2D(2), nn.Dropout(0.25))
    net.add(nn.Conv2D(64, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(2))
    net.add(nn.Flatten(), nn.Dense(128, activation="relu"), nn.Dropout(0.5), nn.Dense(10))
    return net


def run(settings: Settings) -> None:
    """The whole job. Raises: DemoError."""
    _check_writable(settings.output)
    random.seed(settings.seed)
    train, test = data.digits_split()
    if settings.batch_size > len(train):
        raise DemoError(f"a batch of {settings.batch_size} is more than the {len(train)} training images", 2)
    threads = get_num_threads()
    print(f"gluonish {__version__} on {threads} thread{'s' if threads > 1 else ''}")
    print(f"{len(train)} handwritten digits to train, {len(test)} to test; epoch 1 runs eagerly, the others hybridized")
    net = digits_net()
    history = fit(net, train, test, settings)
    images, labels = test[:]
    scores = net(images).asnumpy()
    right = int((scores.argmax(1) == labels.asnumpy()).sum())
    print(f"test accuracy  {100 * right / len(test):.2f} % ({right} of {len(test)} images)")
    print(f"an epoch       {_speed(history.seconds)}")
    pictures = {CURVE: history.picture(), GRID: predictions_picture(images, scores, labels)}
    written = _deliver(net, scores, pictures, settings.output)
    print("fresh process  loads the exported model and gives the same predictions")
    print(f"written        {', '.join(str(path) for path in written)}")


def fit(net: nn.HybridSequential, train: data.ArrayDataset, test: data.ArrayDataset, settings: Settings) -> History:
    """Trains `net`: the first epoch eagerly, the others hybridized."""
    net.initialize(init.Xavier())
    trainer = Trainer(net.collect_params(), "adam", {"learning_rate": _PEAK_RATE})
    criterion = loss.SoftmaxCrossEntropyLoss()
    loader = data.DataLoader(train, settings.batch_size, shuffle=True)
    history = History()
    with _progress(len(loader) * settings.epochs, settings.quiet) as bar:
        for epoch in range(settings.epochs):
            if epoch == 1:
                net.hybridize()
                criterion.hybridize()
            bar.set_description_str(f"epoch {epoch + 1}/{settings.epochs} {'hybridized' if epoch else 'eager'}")
            trainer.set_learning_rate(_PEAK_RATE * (1 - epoch / settings.epochs))
            start = time.perf_counter()
            for mean_loss, accuracy in train_epoch(net, criterion, trainer, loader):
                bar.set_postfix_str(f"loss {mean_loss:.4f}, accuracy {100 * accuracy:.1f} %", refresh=False)
                bar.update()
            history.seconds.append(time.perf_counter() - start)
            history.loss.append(mean_loss)
            history.accuracy.append(accuracy)
            _note_test(history, net, criterion, test)
    return history


def train_epoch(net: Any, criterion: Any, trainer: Trainer, loader: data.DataLoader) -> Iterator[tuple[float, float]]:
    """One pass over the training images; gives the mean loss and the accuracy so far, after each batch."""
    accuracy = metric.Accuracy()
    total = 0.0
    seen = 0
    for images, labels in loader:
        with autograd.record():
            scores = net(images)
            losses = criterion(scores, labels)
        losses.backward()
        trainer.step(len(labels))
        accuracy.update(labels, scores)
        total += float(losses.sum())
        seen += len(labels)
        yield total / seen, accuracy.get()[1]


def predictions_picture(images: NDArray, scores: np.ndarray, labels: NDArray) -> draw.Picture:
    """Test images with predictions: the wrong ones first, then others, as many as fit."""
    guesses, truths = scores.argmax(1), labels.asnumpy()
    shown = np.argsort(guesses == truths, kind="stable")[:_SHOWN]
    title = f"{(guesses == truths).sum()} of {len(truths)} test images are right; the wrong ones come first, in red"
    return draw.image_grid(images.asnumpy()[shown], guesses[shown], truths[shown], title)


def _note_test(history: History, net: Any, criterion: Any, test: data.ArrayDataset) -> None:
    images, labels = test[:]
    scores = net(images)
    history.test_loss.append(float(criterion(scores, labels).mean()))
    history.test_accuracy.append(float((scores.argmax(1) == labels).mean()))


def _progress(total: int, quiet: bool) -> Any:
    shape = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} batches {elapsed}<{remaining}{postfix}"
    return tqdm(total=total, bar_format=shape, dynamic_ncols=True, disable=quiet)


def _speed(seconds: list[float]) -> str:
    eager, first, later = seconds[0], seconds[1], seconds[2:]
    if not later:
        return f"eager {eager:.2f} s, hybridized {first:.2f} s, compiling included"
    usual = median(later)
    start = f"; the first one {first:.2f} s, compiling included"
    return f"eager {eager:.2f} s, hybridized {usual:.3f} s: {eager / usual:.1f} times as fast{start}"


def _deliver(net: Any, scores: np.ndarray, pictures: dict[str, draw.Picture], output: Path) -> list[Path]:
    try:
        written = list(net.export(output / MODEL))
        for name, picture in pictures.items():
            picture.save(output / name)
            written.append(output / name)
    except OSError as error:
        raise DemoError(_reason(error, output), 2) from None
    _check_fresh_process(output / MODEL, scores)
    return written


def _check_fresh_process(model: Path, scores: np.ndarray) -> None:
    found = np.frombuffer(_fresh_process(model), scores.dtype)
    same = found.shape == (scores.size,) and (found.reshape(scores.shape).argmax(1) == scores.argmax(1)).all()
    if not same or not np.allclose(found, scores.ravel(), rtol=1e-4, atol=1e-4):
        raise DemoError(f"the exported model {model}.json does not give the predictions of the network it came from", 1)


def _fresh_process(model: Path) -> bytes:
    # the child must find this gluonish even where it was put on the path by hand
    place = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(p for p in (place, os.environ.get("PYTHONPATH")) if p)
    # (-P: it imports nothing that happens to lie in the working folder)
    command = [sys.executable, "-P", "-c", _CHILD, str(model)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise DemoError(f"a fresh process could not run the exported model {model}.json: {last[0]}", 1)
    return done.stdout


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DemoError(_reason(error, folder), 2) from None


def _reason(error: OSError, folder: Path) -> str:
    return f"cannot write to the folder {folder}: {error.strerror or error}"
