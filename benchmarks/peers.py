"""The processes of the libraries that are installed here: where their interpreter is, how many threads they get."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("gluonish", "torch", "onnxruntime", "mxnet", "jax", "numpy")
MXNET_PYTHON = "GLUONISH_MXNET_PYTHON"
_PATIENCE = 600.0  # seconds for one answer; compiling may take long


class PeerError(Exception):
    """What a library's process reported, or that it died."""


def interpreter(peer: str) -> str | None:
    """The Python that has the library, None if there is none."""
    if peer == "mxnet" and os.environ.get(MXNET_PYTHON):
        return shutil.which(os.environ[MXNET_PYTHON])
    return sys.executable if importlib.util.find_spec(peer) else None


def installed() -> list[str]:
    """The libraries that can take part."""
    return [peer for peer in PEERS if interpreter(peer)]


def processors(threads: int) -> list[int]:
    """The processors of a run: as many as there are threads, of different cores where possible; [] where unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    usable = sorted(os.sched_getaffinity(0))
    seen: set[str] = set()
    first: list[int] = []
    others: list[int] = []
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = siblings.read_text() if siblings.exists() else str(cpu)
        (others if core in seen else first).append(cpu)
        seen.add(core)
    return (first + others)[:threads]


def environment(threads: int) -> dict[str, str]:
    """Every library's variable for its number of threads."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GLUONISH_NUM_THREADS", "NPROC")
    eigen = "" if threads > 1 else "--xla_cpu_multi_thread_eigen=false"
    flags = " ".join(part for part in (os.environ.get("XLA_FLAGS", ""), eigen) if part)
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "MXNET_SUBGRAPH_VERBOSE": "0", "PYTHONPATH": path}
    return {**os.environ, **dict.fromkeys(names, count), **own}


class Peer:
    """A library's process; a context manager that ends it for sure."""

    def __init__(self, name: str, threads: int, log: Path) -> None:
        self.name, self._log = name, log
        cpus = ",".join(map(str, processors(threads)))
        python = interpreter(name)
        if python is None:
            raise PeerError(f"{name} is not installed")
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", name, str(threads), cpus],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
                cwd=ROOT, env=environment(threads),
            )  # fmt: skip

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer of the process. Raises: PeerError."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            line = self._answer()
        except BrokenPipeError:
            line = ""
        if not line:
            self._end()
            raise PeerError(f"{self.name}: its process ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer

    def _answer(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], _PATIENCE)[0]:
            self._end()
            raise PeerError(f"{self.name}: no answer in {_PATIENCE:.0f} s")
        return stdout.readline()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no message"

    @property
    def process_id(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *problem: object) -> None:
        process = self._process
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self._end()
        finally:
            process.stdout.close()  # type: ignore[union-attr]
