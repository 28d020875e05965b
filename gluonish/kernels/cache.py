"""Object code on disk, so that a kernel is compiled once on a machine and not once a process.

One file per kernel and target, in `GLUONISH_CACHE` or the platform's folder for caches. Its name is a hash of all that
decides the code; its content is a mark, a checksum and the object file. Files appear by a rename, so several processes
may share the folder. What is damaged is compiled again and replaced; where nothing can be written, kernels live in
memory only, and one warning says so.

Deliberately not here: what is compiled, and any limit on the size of the folder (entries are a few kilobytes; it may be
deleted at any time).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import threading
import warnings
from pathlib import Path

from gluonish.kernels.kernel import Kernel
from gluonish.kernels.target import Target

_MARK = b"gluonish kernel 1\n"
_HASH_BYTES = 32


def key(kernel: Kernel, machine: Target) -> str:
    """The name of a kernel's entry: a hash of its source, its externals, the target and the compiler's own version."""
    facts = (kernel.name, kernel.source, kernel.externals, kernel.gives, machine, _compiler())
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def read(entry: str) -> bytes | None:
    """The object code of an entry; None where there is none, or a damaged one."""
    try:
        content = _path(entry).read_bytes()
    except OSError:
        return None
    code = content[len(_MARK) + _HASH_BYTES :]
    return code if content == _sealed(code) else None


def write(entry: str, code: bytes) -> None:
    """Keeps the object code of an entry; warns once in a process where that is impossible."""
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
    except OSError as error:
        _warn_once(str(path.parent), error.strerror or str(error))


def folder() -> Path:
    """Where entries are."""
    chosen = os.environ.get("GLUONISH_CACHE")
    return Path(chosen) if chosen else _platform_folder() / "gluonish" / "kernels"


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
