"""Datasets: numbered samples. `ArrayDataset` puts arrays of equal length side by side.

Deliberately not here: batches and their order (that is the loader's part).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gluonish.data.stacking import stack_samples
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line


class Dataset(Protocol):
    """What the loader needs of a dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class ArrayDataset:
    """Samples made of columns: sample i is the tuple of their elements i, or that element if there is one column.

    A column is an NDArray, a NumPy array, a list or another dataset; nothing is copied. An index may also be a slice,
    which gives that part of every column.

    Shapes: columns (N, ...) -> samples (...).
    Raises: ValueError without columns, or if their lengths differ.

    >>> from gluonish import data, nd
    >>> images = data.ArrayDataset(nd.zeros((6, 1, 8, 8)), [3, 1, 4, 1, 5, 9])
    >>> image, label = images[2]
    >>> len(images), image.shape, label
    (6, (1, 8, 8), 4)
    """

    def __init__(self, *columns: Any) -> None:
        lengths = [len(column) for column in columns]
        if not columns or min(lengths) != max(lengths):
            raise ValueError(
                f"ArrayDataset needs columns, at least one, of one length; got lengths {lengths} ({user_line()})"
            )
        self._columns = columns
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice) -> Any:
        return _sample([column[index] for column in self._columns])

    def batch(self, indices: np.ndarray) -> Any:
        """The samples at `indices`, stacked column by column: the loader's short cut past single samples."""
        return _sample([_gathered(column, indices) for column in self._columns])


def _sample(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _gathered(column: Any, indices: np.ndarray) -> Any:
    if isinstance(column, NDArray):
        return column.take(indices)
    if isinstance(column, np.ndarray):
        return NDArray(column[indices])
    return stack_samples([column[int(i)] for i in indices])
