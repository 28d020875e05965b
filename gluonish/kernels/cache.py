"""Object code on disk, so that a kernel is compiled once on a machine and not once a process.

One file per kernel and target, in `GLUONISH_CACHE` or the platform's folder for caches. Its name is a hash of all that
decides the code; its content is a mark, a checksum and the object file. Files appear by a rename, so several processes
may share the folder. What is damaged is compiled again and replaced; where nothing can be written, kernels live in
memory only, and one warning says so.

The folder is bounded: beyond `GLUONISH_CACHE_SIZE` (1 GB unless set) the entries that no process has read for longest
go. The time of a file's last change says when it was read, to the day, so a read costs nothing more; and only about one
write in as many as fill 1/64 of the limit looks at the whole folder, chosen by the entry's name, which is as good as
random and needs no count that processes would share.

Deliberately not here: what is compiled.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import sys
import threading
import time
import warnings
from pathlib import Path

from gluonish.kernels.kernel import Kernel
from gluonish.kernels.target import Target

_MARK = b"gluonish kernel 1\n"
_HASH_BYTES = 32
_DEFAULT_LIMIT = 10**9
_DAY = 86400.0
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def key(kernel: Kernel, machine: Target) -> str:
    """The name of a kernel's entry: a hash of its source, its externals, the target and the compiler's own version."""
    facts = (kernel.name, kernel.source, kernel.externals, kernel.gives, machine, _compiler())
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def read(entry: str) -> bytes | None:
    """The object code of an entry; None where there is none, or a damaged one."""
    path = _path(entry)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    _mark_as_read(path)
    code = content[len(_MARK) + _HASH_BYTES :]
    return code if content == _sealed(code) else None


def write(entry: str, code: bytes) -> None:
    """Keeps the object code of an entry; warns once in a process where that is impossible."""
    if limit() == 0:
        return
    path = _path(entry)
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            beside.write_bytes(_sealed(code))
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        if int(entry[:8], 16) * limit() < 2**32 * 64 * len(code):
            trim(keep=path)
    except OSError as error:
        _warn_once(str(path.parent), error.strerror or str(error))


def folder() -> Path:
    """Where entries are."""
    chosen = os.environ.get("GLUONISH_CACHE")
    return Path(chosen) if chosen else _platform_folder() / "gluonish" / "kernels"


def limit() -> int:
    """Bytes that the folder may hold; 0 keeps nothing.

    Raises ValueError where GLUONISH_CACHE_SIZE is not a size.
    """
    return _bytes_of(os.environ.get("GLUONISH_CACHE_SIZE", ""))


def entries() -> list[tuple[Path, os.stat_result]]:
    """The files of the folder and what the system says of them; what other programs put there is left out."""
    found = []
    try:
        with os.scandir(folder()) as files:
            for file in files:
                if ".kernel" in file.name and file.is_file(follow_symlinks=False):
                    try:
                        found.append((Path(file.path), file.stat(follow_symlinks=False)))
                    except FileNotFoundError:  # another process was quicker
                        continue
    except OSError:
        return []
    return found


def trim(keep: Path | None = None) -> int:
    """Removes what was read longest ago until the folder is well below its limit; how many files that were."""
    found = sorted(entries(), key=lambda item: item[1].st_mtime)
    total, removed = sum(stat.st_size for _, stat in found), 0
    room = limit() if total <= limit() else limit() * 9 // 10
    for path, stat in found:
        abandoned = path.suffix != ".kernel" and time.time() - stat.st_mtime > _DAY  # its writer has died
        if path != keep and (total > room or abandoned):
            path.unlink(missing_ok=True)
            total, removed = total - stat.st_size, removed + 1
    return removed


def _mark_as_read(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)
    except OSError:
        return  # a folder that may only be read keeps its times


@functools.cache
def _bytes_of(text: str) -> int:
    if not text:
        return _DEFAULT_LIMIT
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text.upper())
    if not parts:
        raise ValueError(
            f"GLUONISH_CACHE_SIZE must be a size such as 500MB or 2GB (bytes without a unit); got {text!r}"
        )
    return int(float(parts[1]) * _UNITS[parts[2]])


def _path(entry: str) -> Path:
    return folder() / f"{entry}.kernel"


def _platform_folder() -> Path:
    home = Path(os.path.expanduser("~"))
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


def _sealed(code: bytes) -> bytes:
    return _MARK + hashlib.sha256(code).digest() + code


@functools.cache
def _warn_once(place: str, reason: str) -> None:
    text = f"compiled kernels cannot be kept in {place} ({reason}); every process compiles them anew"
    warnings.warn(f"{text}. Set GLUONISH_CACHE to a folder that can be written.", RuntimeWarning, stacklevel=2)


@functools.cache
def _compiler() -> tuple[str, ...]:
    """What turns sources into code: our own files that have a part in it, and the versions of Numba and llvmlite."""
    here = Path(__file__).parent
    nd = here.parent / "nd"
    files = sorted([*here.glob("*.py"), *nd.glob("op.py"), *nd.glob("ops/*.py")])
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return content, _version("numba"), _version("llvmlite")


def _version(package: str) -> str:
    # numba must not be imported for a kernel that is in the cache, and importlib.metadata takes longer than the rest
    spec = importlib.util.find_spec(package)
    place = Path(spec.origin).with_name("_version.py") if spec and spec.origin else None
    if place and place.exists():
        return place.read_text()
    from importlib.metadata import version

    return version(package)
