"""The cache on disk: found again, shared, damaged, unwritable."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gluonish import __main__ as command
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


# --- the limit on its size ---


def age(path: Path, days: float) -> None:
    """As if the file had been read so many days ago."""
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def fill(count: int, size: int = 1000) -> list[Path]:
    """Entries of which the first was read longest ago."""
    made = []
    for number in range(count):
        name = f"{number:064x}"
        cache.write(name, bytes([number % 256]) * size)
        made.append(cache._path(name))
        age(made[-1], 400 - number)
    return made


def test_what_was_read_longest_ago_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fill(20)
    for path in made[:3]:
        assert cache.read(path.stem) is not None  # now they were read last
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "12KB")
    cache.write("f" * 64, b"new" * 100)
    left = set(folder.iterdir())
    assert left == {*made[:3], *made[-(len(left) - 4) :], cache._path("f" * 64)}
    assert 9_000 < sum(path.stat().st_size for path in left) <= 12_000
    assert cache.read("f" * 64) == b"new" * 100


def test_the_limit_holds_whatever_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """By chance a write looks at the folder; the limit is passed by a few hundredths at most, as by many writers."""
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "2M")
    sizes = []
    for _ in range(3000):
        cache.write(rng.bytes(32).hex(), bytes(int(rng.integers(500, 3000))))
        if rng.random() < 0.02:
            sizes.append(sum(stat.st_size for _, stat in cache.entries()))
    assert 1_600_000 < max(sizes) < 2_400_000


def test_writes_seldom_look_at_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    looks = []
    monkeypatch.setattr(cache, "trim", lambda keep=None: looks.append(keep))
    for _ in range(2000):
        cache.write(rng.bytes(32).hex(), bytes(3000))
    assert len(looks) <= 5  # one in 16 MB of 1 GB: 0.4 are to be expected


def test_reads_change_nothing_but_the_day(folder: Path) -> None:
    (path,) = fill(1)
    assert cache.read(path.stem) is not None
    first = path.stat().st_mtime_ns
    assert time.time() - first / 1e9 < 100
    age(path, 0.5)
    half = path.stat().st_mtime_ns
    assert cache.read(path.stem) is not None
    assert path.stat().st_mtime_ns == half


def test_abandoned_files_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = fill(2)
    old, fresh, foreign = (folder / name for name in ("a.kernel.1.2", "b.kernel.3.4", "notes.txt"))
    for path in (old, fresh, foreign):
        path.write_bytes(b"x")
    age(old, 2)
    assert cache.trim() == 1
    assert set(folder.iterdir()) == {*made, fresh, foreign}
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "1")
    cache.trim()
    assert set(folder.iterdir()) == {foreign}


@pytest.mark.parametrize(
    ("text", "size"), [("", 10**9), ("12", 12), ("500MB", 500 * 10**6), ("1.5 g", 1_500_000_000), ("7kb", 7000)]
)
def test_sizes_are_read(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", text)
    assert cache.limit() == size


def test_a_limit_of_nothing_keeps_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., None]
) -> None:
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "0")
    assert works(2.0, call)
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "much")
    with pytest.raises(ValueError, match="GLUONISH_CACHE_SIZE must be a size such as 500MB or 2GB.*got 'much'"):
        works(3.0, call)


def test_the_command_says_how_full_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(3, 10_000)
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "2MB")
    assert command.main(["cache", "info"]) == 0
    assert capsys.readouterr().out == f"{folder}: holds 3 compiled kernels, 0.03 MB of 2 MB at most\n"
    monkeypatch.setenv("GLUONISH_CACHE_SIZE", "2 miles")
    assert command.main(["cache", "info"]) == 2
    assert "must be a size" in capsys.readouterr().err
