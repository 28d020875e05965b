"""The cache on disk: found again, shared, damaged, unwritable."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gluonish.kernels import cache, target
from gluonish.kernels import compile as compiler
from gluonish.kernels.kernel import Kernel

PROGRAM = """
import sys
import numpy as np
from gluonish.kernels import pool
from gluonish.kernels.entry import entry
from gluonish.kernels.kernel import Kernel
kernel = Kernel("double", '''
def double(args, begin, end):
    x = load_i64(args, 0)
    for i in range(begin, end):
        store_f32(x, i, tanh(load_f32(x, i) * float32(2.0)))
''')
x = np.ones(100, "f4")
args = np.array([x.ctypes.data])
table = np.array([[kernel.address, args.ctypes.data, 100, 1]])
pool.set_num_threads(2)
entry(table.ctypes.data, 1)()
assert abs(x - np.tanh(2)).max() < 1e-6
print("numba" in sys.modules)
"""


def run_program(folder: Path) -> str:
    environment = {**os.environ, "GLUONISH_CACHE": str(folder)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a process that has compiled nothing yet."""
    monkeypatch.setenv("GLUONISH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_addresses", {})
    cache._warn_once.cache_clear()
    yield tmp_path
    cache._warn_once.cache_clear()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of kernels that are really compiled during the test."""
    names: list[str] = []
    original = compiler.object_code

    def counted(kernel: Kernel, *rest: object) -> bytes:
        names.append(kernel.name)
        return original(kernel, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(compiler, "object_code", counted)
    return names


def kernel(factor: float = 2.0) -> Kernel:
    return Kernel(
        "scaled",
        "def scaled(args, begin, end):\n    x = load_i64(args, 0)\n    for i in range(begin, end):\n"
        f"        store_f32(x, i, load_f32(x, i) * float32({factor}))\n",
    )


def works(factor: float, call: Callable[..., None]) -> bool:
    x = np.ones(10, "f4")
    call(kernel(factor), [x], 0, 10)
    return bool((x == factor).all())


def forget() -> None:
    compiler._addresses.clear()


def test_a_second_process_needs_no_numba(tmp_path: Path) -> None:
    assert run_program(tmp_path) == "True"
    assert run_program(tmp_path) == "False"


def test_found_again(folder: Path, compiled: list[str], call: Callable[..., None]) -> None:
    assert works(2.0, call)
    forget()
    assert works(2.0, call)
    assert compiled == ["scaled"] and len(list(folder.iterdir())) == 1


def test_every_fact_makes_another_entry() -> None:
    base = kernel()
    keys = {cache.key(base, target.host())}
    keys.add(cache.key(kernel(3.0), target.host()))
    keys.add(cache.key(Kernel("other", base.source), target.host()))
    keys.add(cache.key(Kernel("scaled", base.source, (("f", "intrinsics:math_intrinsic", ("exp",)),)), target.host()))
    keys.add(cache.key(Kernel("scaled", base.source, (("f", "intrinsics:math_intrinsic", ("log",)),)), target.host()))
    keys.update(cache.key(base, target.named(level)) for level in target.available())
    assert len(keys) == 5 + len(target.available()) - 1  # the host is one of the levels
    assert cache.key(Kernel("scaled", base.source, plan=print), target.host()) in keys  # type: ignore[arg-type]


def test_new_sources_make_new_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.key(kernel(), target.host())
    monkeypatch.setattr(cache, "_compiler", lambda: ("other",))
    assert cache.key(kernel(), target.host()) != before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
def test_damaged_entries_are_rebuilt(damage: str, folder: Path, compiled: list[str], call: Callable[..., None]) -> None:
    assert works(2.0, call)
    (entry,) = folder.iterdir()
    content = entry.read_bytes()
    flipped = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
    entry.write_bytes({"truncated": content[:-7], "flipped": flipped, "empty": b"", "foreign": b"MZ" * 600}[damage])
    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(2.0, call)
    assert compiled == ["scaled", "scaled"]
    assert entry.read_bytes() == content


def test_a_folder_that_cannot_be_written_warns_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., None]
) -> None:
    blocked = folder / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("GLUONISH_CACHE", str(blocked / "cache"))
    with pytest.warns(RuntimeWarning, match="cannot be kept in .*every process compiles them anew") as caught:
        assert works(2.0, call) and works(3.0, call)
    assert len(caught) == 1


def test_a_full_disk_leaves_no_remains(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., None]
) -> None:
    def full(path: Path, content: bytes) -> int:
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert works(2.0, call)
    assert list(folder.iterdir()) == []


def test_processes_share_the_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "GLUONISH_CACHE": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=-1) for _ in range(3)]
    assert all(process.wait(120) == 0 for process in running)
    for process in running:
        process.communicate()
    assert all(entry.suffix == ".kernel" for entry in tmp_path.iterdir())
    assert run_program(tmp_path) == "False"


def test_default_folder_is_the_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GLUONISH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform.startswith("linux"):
        assert cache.folder() == tmp_path / "gluonish" / "kernels"
    assert cache.folder().parts[-2:] == ("gluonish", "kernels")
