"""Handwritten digits that come with the package: small enough to ship, real enough to learn from.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, licence CC BY 4.0. `digits.txt` beside the file tells how it was made.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from gluonish.data.dataset import ArrayDataset
from gluonish.nd import FileError, NDArray, array
from gluonish.nd.errors import user_line

_FILE = Path(__file__).with_name("digits.npy.gz")
_INK = 16  # the value of a fully inked pixel


def digits() -> tuple[NDArray, NDArray]:
    """All 1,797 digits: images (1797, 1, 8, 8) float32 from 0 (paper) to 1 (ink), and labels (1797,) int64.

    Raises: FileError if the file in the package is damaged.

    >>> from gluonish import data
    >>> images, labels = data.digits()
    >>> images.shape, labels[:5].tolist()
    ((1797, 1, 8, 8), [0, 1, 2, 3, 4])
    """
    rows = _rows()
    images = np.ascontiguousarray(rows[1:].T, np.float32).reshape(-1, 1, 8, 8) / np.float32(_INK)
    return array(images), array(rows[0].astype(np.int64))


def digits_split(seed: int = 0, test: float = 0.2) -> tuple[ArrayDataset, ArrayDataset]:
    """The digits shuffled and cut in two: a dataset to train with and one to test with, of (image, label) samples.

    test: the part of all images that goes to the test set. The same seed gives the same cut on every machine;
    `gluonish.random` is not touched.

    Raises: ValueError if `test` leaves one of the two without images.

    >>> from gluonish import data
    >>> train, test = data.digits_split()
    >>> len(train), len(test)
    (1438, 359)
    """
    images, labels = (column.asnumpy() for column in digits())
    count = round(test * len(labels))
    if not 0 < count < len(labels):
        raise ValueError(
            f"digits_split: test must leave both sets some of the {len(labels)} images, got {test} ({user_line()})"
        )
    order = np.argsort(np.random.Philox(key=seed).random_raw(len(labels)), kind="stable")
    return _dataset(images, labels, order[count:]), _dataset(images, labels, order[:count])


def _dataset(images: np.ndarray, labels: np.ndarray, places: np.ndarray) -> ArrayDataset:
    return ArrayDataset(array(images[places]), array(labels[places]))


def _rows() -> np.ndarray:
    try:
        return np.load(io.BytesIO(gzip.decompress(_FILE.read_bytes())), allow_pickle=False)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FileError(
            f"the digits in {_FILE} cannot be read ({error}); install gluonish again ({user_line()})"
        ) from None
