"""What `import gluonish` costs: whole processes, start of the interpreter included."""

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


@IMPORT.side("numpy")
def _numpy(sizes: Sizes) -> Side:
    return _process("numpy")


@IMPORT.side("bare python", peer="numpy")
def _python(sizes: Sizes) -> Side:
    return _process("sys")
