"""What `import gluonish` costs: whole processes, start of the interpreter included.

`import gluonish` alone loads next to nothing, so the subpackages that every program uses have sides of their own.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.row import Bar, Row, Side, Sizes

IMPORT = Row("import", 'python -c "import ..."', bars=(Bar("numpy", 1.5),), least_rounds=9)


def _process(module: str) -> Side:
    command = [sys.executable, "-c", f"import {module}"]
    return Side(lambda: subprocess.run(command, check=True), list)


@IMPORT.side("gluonish")
def _gluonish(sizes: Sizes) -> Side:
    return _process("gluonish")


@IMPORT.side("gluonish.nd", peer="gluonish")
def _gluonish_nd(sizes: Sizes) -> Side:
    return _process("gluonish.nd")


@IMPORT.side("gluonish.block.nn", peer="gluonish")
def _gluonish_nn(sizes: Sizes) -> Side:
    return _process("gluonish.block.nn")


@IMPORT.side("numpy")
def _numpy(sizes: Sizes) -> Side:
    return _process("numpy")


@IMPORT.side("bare python", peer="numpy")
def _python(sizes: Sizes) -> Side:
    return _process("sys")
