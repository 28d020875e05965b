"""Arrays in files: the safetensors format, read and written with NumPy alone.

A file is: 8 bytes little-endian length of the header, the header (JSON: name -> dtype, shape, data_offsets, and
optionally __metadata__), the bytes of the arrays. Nothing in it can run code. Every number is checked before use.

Source of the format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from gluonish.nd.array import NDArray
from gluonish.nd.dtypes import bfloat16
from gluonish.nd.errors import user_line

_CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
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
    """A binary file that takes the place of `path` only once it is written whole; until then the old file stays."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            text = f"cannot write {path}: {error.strerror}; what was there is untouched ({user_line()})"
            raise OSError(error.errno, text) from None
        raise


def save(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named arrays; the old file stays if that fails.

    Raises: OSError if the file cannot be written; TypeError for a dtype the format lacks, for a name that is not text
    or for metadata that are not text by text.
    """
    if not all(isinstance(text, str) for pair in (metadata or {}).items() for text in pair):
        raise TypeError(f"save: metadata must be text by text, got {metadata!r:.100} ({user_line()})")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    blobs = []
    offset = 0
    for name, array in arrays.items():
        if not isinstance(name, str) or name == "__metadata__" or not isinstance(array, NDArray):
            raise TypeError(f"save: cannot store a {type(array).__name__} under the name {name!r} ({user_line()})")
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
            file.write(data.reshape(-1).view(np.uint8).data)


def load(path: str | os.PathLike[str]) -> dict[str, NDArray]:
    """Reads all arrays of a file, by name.

    Raises: FileNotFoundError and other OSErrors; FileError for a damaged, truncated or foreign file.
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray], dict[str, str]]:
    """Arrays and the metadata written beside them."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise type(error)(error.errno, f"cannot read {path}: {error.strerror} ({user_line()})") from None
    header, start = _header(path, content)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _damaged(path, "its metadata are not text by text")
    entries = {name: _entry(path, name, entry) for name, entry in header.items()}
    _check_cover(path, entries, len(content) - start)
    body = memoryview(content)[start:]
    return {name: NDArray(_values(body, *entry)) for name, entry in entries.items()}, metadata


def _damaged(path: Path, what: str) -> FileError:
    return FileError(f"{path} is not a whole safetensors file: {what}; copy or save it again ({user_line()})")


def _header(path: Path, content: bytes) -> tuple[dict[str, Any], int]:
    if len(content) < 8:
        raise _damaged(path, f"it has only {len(content)} bytes")
    length = int.from_bytes(content[:8], "little")
    if length > min(_HEADER_LIMIT, len(content) - 8):
        raise _damaged(path, f"its header claims {length} bytes, the file has {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length].decode(), object_pairs_hook=_table)
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON, or names something twice") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a table")
    return header, 8 + length


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _entry(path: Path, name: str, entry: Any) -> tuple[np.dtype, list[int], int, int]:
    """Dtype, shape, begin and end of one array, checked as far as the entry alone can tell."""
    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _damaged(path, f"the entry of {name!r} is incomplete") from None
    if not isinstance(code, str) or code not in _CODES:
        raise _damaged(path, f"{name!r} has the unknown dtype {code!r}")
    if not isinstance(shape, list) or len(shape) > 32 or not all(_whole(s) for s in [*shape, begin, end]):
        raise _damaged(path, f"the shape or place of {name!r} is not made of whole numbers")
    dtype = bfloat16() if code == "BF16" else np.dtype(_CODES[code])
    count, extent = 1, dtype.itemsize
    for size in shape:
        count *= size
        extent *= max(size, 1)
    if extent >= 2**63:
        raise _damaged(path, f"{name!r} has an impossible shape")
    if end - begin != count * dtype.itemsize:
        raise _damaged(path, f"{name!r} needs {count * dtype.itemsize} bytes, its entry says {end - begin}")
    return dtype, shape, begin, end


def _check_cover(path: Path, entries: Mapping[str, tuple[np.dtype, list[int], int, int]], length: int) -> None:
    """The arrays lie side by side and fill the data: no byte is used twice, none is left over."""
    reached = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != reached:
            raise _damaged(path, f"{name!r} begins at byte {begin}, the array before it ends at {reached}")
        reached = end
    if reached != length:
        raise _damaged(path, f"its arrays need {reached} bytes, the data have {length}")


def _values(body: memoryview, dtype: np.dtype, shape: list[int], begin: int, end: int) -> np.ndarray:
    return np.frombuffer(body[begin:end], dtype).reshape(shape).copy()
