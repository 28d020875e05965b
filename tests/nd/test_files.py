"""safetensors files: round trips, the format itself, hostile files, and the old file that a failed write leaves."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gluonish import nd
from gluonish.nd import files

CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint8": "U8",
    "bool": "BOOL",
}


def written(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)
    return path


@pytest.mark.parametrize("dtype", CODES)
def test_round_trip(dtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {
        "a": nd.array(rng.integers(0, 2, (3, 4)).astype(dtype)),
        'layer.0.weight é\n"': nd.array(rng.integers(0, 2, (2, 3, 1)).astype(dtype)),
        "scalar": nd.array(np.array(1, dtype)),
        "empty": nd.zeros((0, 5), dtype=dtype),
        "turned": nd.array(rng.integers(0, 2, (3, 5)).astype(dtype)).T[::-1, 1:],
    }
    path = tmp_path / "m.safetensors"
    nd.save(path, arrays)
    found = nd.load(str(path))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].spec == array.spec and np.array_equal(found[name].asnumpy(), array.asnumpy())
        found[name][...] = found[name]  # writable, in memory of its own


def test_special_floats_and_metadata(tmp_path: Path) -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-42], np.float32)
    nd.save(tmp_path / "m", {"x": nd.array(x)}, {"format": "gluonish", "é": ""})
    found, metadata = files.load_with_metadata(tmp_path / "m")
    assert found["x"].asnumpy().tobytes() == x.tobytes()
    assert metadata == {"format": "gluonish", "é": ""}
    nd.save(tmp_path / "none", {})
    assert nd.load(tmp_path / "none") == {}


def test_the_layout_is_the_formats(tmp_path: Path) -> None:
    """Written here byte by byte, as any other program would read it; and read here as any other would write it."""
    nd.save(tmp_path / "m", {"b": nd.array([[1, 2]], dtype="int32"), "a": nd.array([0.5])}, {"k": "v"})
    content = (tmp_path / "m").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and content[8:9] == b"{"
    assert header["__metadata__"] == {"k": "v"}
    assert header["b"] == {"dtype": "I32", "shape": [1, 2], "data_offsets": [0, 8]}
    assert header["a"] == {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}
    assert content[8 + length :] == np.array([1, 2], "<i4").tobytes() + np.array([0.5], "<f4").tobytes()

    foreign = {
        "z": {"shape": [2], "data_offsets": [4, 12], "dtype": "F32"},
        "y": {"dtype": "F16", "data_offsets": [0, 4], "shape": [2]},
    }
    path = written(tmp_path / "foreign", foreign, np.array([1, 2], "<f2").tobytes() + np.array([3, 4], "<f4").tobytes())
    found = nd.load(path)
    assert found["y"].tolist() == [1.0, 2.0] and found["z"].tolist() == [3.0, 4.0]


FLOAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def entry(**changes: Any) -> dict[str, Any]:
    return {"x": {**FLOAT, **changes}}


ATTACKS: dict[str, tuple[Any, int, int | None]] = {  # header, bytes of data, length claimed
    "header longer than the file": (entry(), 8, 10**6),
    "header of exabytes": (entry(), 8, 2**64 - 1),
    "header that ends early": (entry(), 8, 20),
    "empty header": (b"", 0, None),
    "not JSON": (b"{'x': 1}", 0, None),
    "not text": (b"\xff\xfe{}", 0, None),
    "a list": ([1], 0, None),
    "deep nesting": (b"[" * 100_000, 0, None),
    "a million digits": (b'{"x":{"dtype":"F32","shape":[' + b"9" * 10**6 + b'],"data_offsets":[]}}', 8, None),
    "the same name twice": (b'{"x":%s,"x":%s}' % ((json.dumps(FLOAT).encode(),) * 2), 8, None),
    "unknown dtype": (entry(dtype="F8_E4M3"), 8, None),
    "a dtype that is a list": (entry(dtype=["F32"]), 8, None),
    "negative shape": (entry(shape=[-2]), 8, None),
    "fractional shape": (entry(shape=[2.0]), 8, None),
    "true as a shape": (entry(shape=[True, 2]), 8, None),
    "a shape that is a word": (entry(shape="22"), 8, None),
    "a shape whose product wraps to the right size": (entry(shape=[2**62, 4, 2]), 8, None),
    "a huge shape of nothing": (entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0]), 0, None),
    "a hundred dimensions": (entry(shape=[1] * 100, data_offsets=[0, 4]), 4, None),
    "shape and bytes disagree": (entry(shape=[3]), 8, None),
    "offsets past the end": (entry(data_offsets=[8, 16]), 8, None),
    "offsets backwards": (entry(data_offsets=[8, 0]), 8, None),
    "negative offsets": (entry(data_offsets=[-8, 0]), 8, None),
    "three offsets": (entry(data_offsets=[0, 4, 8]), 8, None),
    "no offsets": ({"x": {"dtype": "F32", "shape": [2]}}, 8, None),
    "an entry that is a number": ({"x": 7}, 8, None),
    "an entry that is nothing": ({"x": None}, 8, None),
    "two arrays on the same bytes": ({"x": FLOAT, "y": FLOAT}, 8, None),
    "overlapping arrays": ({"x": FLOAT, "y": {**FLOAT, "data_offsets": [4, 12]}}, 12, None),
    "a hole": ({"x": FLOAT, "y": {**FLOAT, "data_offsets": [12, 20]}}, 20, None),
    "data that nobody names": (entry(), 9, None),
    "a truncated file": (entry(), 7, None),
    "metadata that is a list": ({**entry(), "__metadata__": ["a"]}, 8, None),
    "metadata that nests": ({**entry(), "__metadata__": {"a": {"b": "c"}}}, 8, None),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_files_are_refused_in_one_line(attack: str, tmp_path: Path) -> None:
    header, size, length = ATTACKS[attack]
    path = written(tmp_path / "evil.safetensors", header, bytes(size), length)
    with pytest.raises(nd.FileError, match="evil.safetensors is not a whole safetensors file") as caught:
        nd.load(path)
    text = str(caught.value)
    assert "test_files.py:" in text and len(text) < 500 and "\n" not in text


def test_every_truncation_and_many_flipped_bytes_are_noticed_or_harmless(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "m"
    nd.save(path, {"a": nd.ones((3, 2)), "b": nd.array([1, 2])}, {"k": "v"})
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(nd.FileError):
            nd.load(path)
    for _ in range(300):
        broken = bytearray(content)
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            nd.load(path)  # a flipped bit in the numbers or in a name is still a file
        except nd.FileError:
            pass


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot read .*nowhere.*test_files.py"):
        nd.load(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match="cannot read"):
        nd.load(tmp_path)


class Full:
    """A file on a disk with room for `left` bytes."""

    def __init__(self, file: Any, left: int) -> None:
        self.file, self.left = file, left

    def write(self, data: Any) -> int:
        self.left -= len(memoryview(data).cast("B"))
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *details: Any) -> None:
        self.file.close()


@pytest.mark.parametrize("left", [0, 40, 300])
def test_the_old_file_survives_a_full_disk(left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    nd.save(path, {"x": nd.array([1.0])})
    before = path.read_bytes()
    monkeypatch.setattr(files, "open", lambda *a: Full(open(*a), left), raising=False)
    with pytest.raises(OSError, match=r"write .*: No space left.*; what was there is untouched \(test_files.py"):
        nd.save(path, {"x": nd.zeros(1000)})
    monkeypatch.undo()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m"]
    nd.save(path, {"x": nd.array([2.0])})
    assert nd.load(path)["x"].tolist() == [2.0]


def test_the_old_file_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    nd.save(path, {"x": nd.array([1.0])})

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nd.save(path, {"x": nd.array([2.0])})
    monkeypatch.undo()
    assert nd.load(path)["x"].tolist() == [1.0] and os.listdir(tmp_path) == ["m"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot write .*No such file or directory.*test_files.py"):
        nd.save(tmp_path / "no" / "such" / "folder", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="cannot write"):
        nd.save(tmp_path / "folder", {})
    assert os.listdir(tmp_path) == ["folder"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    nd.save(tmp_path / "m", {})
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


REFUSED: list[tuple[Callable[[], tuple[Any, ...]], str]] = [
    (lambda: ({1: nd.ones(1)},), "under the name 1"),
    (lambda: ({"__metadata__": nd.ones(1)},), "under the name '__metadata__'"),
    (lambda: ({"x": np.ones(1)},), "cannot store a ndarray"),
    (lambda: ({"x": nd.ones(1)}, {"epoch": 3}), "metadata must be text by text"),
]


@pytest.mark.parametrize(("arguments", "text"), REFUSED)
def test_what_cannot_be_saved_touches_no_file(arguments: Callable[[], Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=text) as caught:
        nd.save(tmp_path / "m", *arguments())
    assert "test_files.py:" in str(caught.value) and not os.listdir(tmp_path)
