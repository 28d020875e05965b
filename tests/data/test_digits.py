"""The digits in the package are the UCI images, unchanged, and their split is fixed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from gluonish import data, random
from gluonish.data import uci_digits as module
from gluonish.nd import FileError

# of the pixels of scikit-learn's load_digits as bytes, image by image, and of its labels
_PIXELS = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
_LABELS = "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype(np.uint8).tobytes()).hexdigest()


def test_digits_are_the_published_ones() -> None:
    images, labels = data.digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == np.float32
    assert labels.shape == (1797,) and labels.dtype == np.int64
    assert _sha256(images.asnumpy() * 16) == _PIXELS
    assert _sha256(labels.asnumpy()) == _LABELS


def test_digits_equal_those_of_scikit_learn() -> None:
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = data.digits()
    np.testing.assert_array_equal(images.asnumpy()[:, 0] * 16, theirs.images)
    np.testing.assert_array_equal(labels.asnumpy(), theirs.target)


def test_each_call_gives_arrays_of_its_own() -> None:
    first, labels = data.digits()
    first[:] = 0
    labels[:] = 0
    again, again_labels = data.digits()
    assert again.asnumpy().max() == 1 and again_labels.asnumpy().max() == 9


def test_the_file_is_small_and_tells_its_source() -> None:
    folder = Path(module.__file__).parent
    assert (folder / "digits.npy.gz").stat().st_size < 40_000
    text = (folder / "digits.txt").read_text()
    for fact in ("10.24432/C50P49", "CC BY 4.0", "Alpaydin", "Kaynak", "UCI"):
        assert fact in text


def test_split_uses_every_image_once() -> None:
    train, test = data.digits_split()
    images, labels = data.digits()
    assert (len(train), len(test)) == (1438, 359)
    ours = np.concatenate([train[:][0].asnumpy(), test[:][0].asnumpy()]).reshape(-1, 64)
    ours = np.column_stack([ours, np.concatenate([train[:][1].asnumpy(), test[:][1].asnumpy()])])
    theirs = np.column_stack([images.asnumpy().reshape(-1, 64), labels.asnumpy()])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_split_is_fixed_by_its_seed_alone() -> None:
    random.seed(1)
    first = data.digits_split(seed=3)[1][:][0].asnumpy()
    random.seed(2)
    np.testing.assert_array_equal(data.digits_split(seed=3)[1][:][0].asnumpy(), first)
    assert (data.digits_split(seed=4)[1][:][0].asnumpy() != first).any()
    # a change here would change every published figure
    assert data.digits_split()[1][:][1].tolist()[:10] == [2, 4, 5, 4, 8, 2, 0, 6, 3, 3]


def test_split_leaves_the_random_stream_alone() -> None:
    random.seed(5)
    expected = random.uniform(shape=4).tolist()
    random.seed(5)
    data.digits_split(seed=9)
    assert random.uniform(shape=4).tolist() == expected


@pytest.mark.parametrize("part", [0.0, 1.0, -0.5, 2.0, 1e-9])
def test_split_refuses_an_empty_side(part: float) -> None:
    with pytest.raises(ValueError, match=r"digits_split: test must leave both sets some.*test_digits\.py:\d+"):
        data.digits_split(test=part)


def _changed(content: bytes) -> bytes:
    return content[:9000] + bytes([content[9000] ^ 1]) + content[9001:]


@pytest.mark.parametrize("damage", [_changed, lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" + b])
def test_a_damaged_file_is_an_error(damage: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "digits.npy.gz"
    copy.write_bytes(damage(module._FILE.read_bytes()))  # type: ignore[operator]
    monkeypatch.setattr(module, "_FILE", copy)
    with pytest.raises(FileError, match="install gluonish again"):
        data.digits()
