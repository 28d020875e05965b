"""The `gluonish` command: `gluonish demo` and `gluonish cache`. `python -m gluonish` is the same.

A mistake of the user gives one line on stderr and exit status 2; an interruption gives one line and 130.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit status."""
    try:
        chosen = _parser().parse_args(arguments)
        status = chosen.run(chosen)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("gluonish: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `gluonish demo | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser() -> argparse.ArgumentParser:
    from gluonish import __version__

    parser = _Parser(prog="gluonish", description="A Gluon-style deep-learning library.")
    parser.add_argument("--version", action="version", version=f"gluonish {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_cache(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    from gluonish.demo import Settings

    about = "learn to read handwritten digits, deploy the model, draw the result (under a minute)"
    demo = commands.add_parser(
        "demo",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Trains a small convolutional network on the 1,797 images "
        "that come with the package: one epoch eagerly, the others hybridized. Prints the accuracy on test images and "
        "the time of both kinds of epoch, exports the model, loads it in a fresh process and compares the predictions.",
        epilog="Files written: digits-model.json and digits-model.safetensors (the model), digits-learning-curve.svg, "
        "digits-predictions.svg. Exit status: 0 if all went well, 1 if the exported model does not behave like the "
        "network, 2 for bad options or a folder that cannot be written, 130 if interrupted.",
    )
    default = "(default: %(default)s)"
    demo.add_argument("--epochs", type=_whole(2), metavar="N", help=f"epochs to train, at least 2 {default}")
    demo.add_argument("--batch-size", type=_whole(1), metavar="N", help=f"images per step {default}")
    demo.add_argument("--seed", type=_whole(0), metavar="N", help=f"seed of weights, order and dropout {default}")
    demo.add_argument("--output", type=Path, metavar="DIR", help=f"folder to write to {default}")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")
    demo.set_defaults(run=_demo, **asdict(Settings()))


def _add_cache(commands: argparse._SubParsersAction[_Parser]) -> None:
    about = "show or empty the folder of compiled kernels"
    cache = commands.add_parser(
        "cache",
        help=about,
        description=f"{about[0].upper()}{about[1:]}. Compiled kernels are kept on disk so that each is compiled once "
        "on a machine; what is deleted is compiled again when it is needed. GLUONISH_CACHE names another folder. "
        "Beyond GLUONISH_CACHE_SIZE (such as 500MB; 1GB unless set) the entries that were not read for longest go.",
    )
    cache.add_argument("action", choices=("info", "clear"), help="info: its place and size; clear: empty it")
    cache.set_defaults(run=_cache)


def _whole(least: int) -> type[int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"needs a whole number from {least} up, got {text!r}")
        return value

    return number  # type: ignore[return-value]  # argparse calls it like a type


def _demo(chosen: argparse.Namespace) -> int:
    from gluonish import demo

    names = [part.name for part in fields(demo.Settings)]
    try:
        demo.run(demo.Settings(**{name: getattr(chosen, name) for name in names}))
    except demo.DemoError as error:
        print(f"gluonish demo: {error}", file=sys.stderr)
        return error.code
    return 0


def _cache(chosen: argparse.Namespace) -> int:
    from gluonish.kernels import cache

    folder = cache.folder()
    try:
        limit = cache.limit()
    except ValueError as error:
        print(f"gluonish cache: {error}", file=sys.stderr)
        return 2
    entries = cache.entries()
    size = sum(stat.st_size for _, stat in entries)
    if chosen.action == "clear":
        try:
            for entry, _ in entries:
                entry.unlink(missing_ok=True)
        except OSError as error:
            print(f"gluonish cache: cannot empty {folder}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"{folder}: removed {len(entries)} compiled kernels, {size / 1e6:.2f} MB")
        return 0
    print(f"{folder}: holds {len(entries)} compiled kernels, {size / 1e6:.2f} MB of {limit / 1e6:.0f} MB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
