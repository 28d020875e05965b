"""Arrays in files: the safetensors format, read and written with NumPy alone.

A file is: 8 bytes little-endian length of the header, the header (JSON: name -> dtype, shape, data_offsets, and
optionally __metadata__), the bytes of the arrays. Nothing in it can run code. Every number is checked before use.

Source of the format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from gluonish.nd.array import NDArray
from gluonish.nd.errors import user_line

_CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U8": "uint8",
    "BOOL": "bool",
}
_NAMES = {name: code for code, name in _CODES.items()}
_HEADER_LIMIT = 100_000_000


class FileError(ValueError):
    """A file that is not what it should be: which, what is wrong with it, what to do."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file to write that takes the place of `path` only once it is whole; if writing fails, the old file stays."""
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror} ({user_line()})") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot write {path}: {error.strerror}; what was there is untouched ({user_line()})") from None
        raise


def save(path: str | os.PathLike[str], arrays: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named arrays; the old file stays if that fails.

    Raises: OSError if the file cannot be written; TypeError for a dtype the format lacks.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    blobs = []
    offset = 0
    for name, array in arrays.items():
        data = np.ascontiguousarray(array._values("save"))
        if data.dtype.name not in _NAMES:
            raise TypeError(f"save: {name!r} has dtype {data.dtype}, which the file format lacks ({user_line()})")
        header[name] = {
            "dtype": _NAMES[data.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + data.nbytes],
        }
        offset += data.nbytes
        blobs.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in blobs:
            file.write(data.data if data.size else b"")


def load(path: str | os.PathLike[str]) -> dict[str, NDArray]:
    """Reads all arrays of a file, by name.

    Raises: FileNotFoundError; FileError for a damaged, truncated or foreign file.
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Arrays and the metadata written beside them."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path} ({user_line()})") from None
    header, start = _header(path, content)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(path, "its metadata is not a table")
    body = memoryview(content)[start:]
    return {name: NDArray(_read(path, name, entry, body)) for name, entry in header.items()}, metadata


def _damaged(path: Path, what: str) -> FileError:
    return FileError(f"{path} is not a whole safetensors file: {what}; copy or save it again ({user_line()})")


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], int]:
    if len(content) < 8:
        raise _damaged(path, f"it has only {len(content)} bytes")
    length = int.from_bytes(content[:8], "little")
    if length > min(_HEADER_LIMIT, len(content) - 8):
        raise _damaged(path, f"its header claims {length} bytes, the file has {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table")
    return header, 8 + length


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read(path: Path, name: str, entry: Any, body: memoryview) -> np.ndarray:
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _damaged(path, f"the entry of {name!r} is incomplete") from None
    if code not in _CODES:
        raise _damaged(path, f"{name!r} has the unknown dtype {code!r}")
    if not isinstance(shape, list) or not all(_whole(s) for s in shape) or not _whole(begin) or not _whole(end):
        raise _damaged(path, f"the shape or place of {name!r} is not made of whole numbers")
    dtype = np.dtype(_CODES[code])
    count = 1
    for size in shape:
        count *= size
    if end < begin or end - begin != count * dtype.itemsize:
        raise _damaged(path, f"{name!r} needs {count * dtype.itemsize} bytes, its entry says {end - begin}")
    if end > len(body):
        raise _damaged(path, f"{name!r} ends at byte {end}, the data have {len(body)}")
    return np.frombuffer(body[begin:end], dtype).reshape(shape).copy()
