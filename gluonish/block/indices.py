"""Errors of labels and tokens: indices for which a negative number is a mistake (`nd.indexing.strict`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish.nd import NDArray
from gluonish.nd.errors import user_line


def index_error(error: Exception, name: str, what: str, indices: NDArray, size: Any) -> Exception:
    """The IndexError of an op, reworded to name Block, position and value; itself where values are not known."""
    if not isinstance(indices._data, np.ndarray):
        return error
    with np.errstate(invalid="ignore"):  # NaN is no index, and no accident here
        values = indices._data.astype(np.int64)
        broken = np.isfinite(indices._data) & (indices._data != values)
    bad = (values < 0) | (values >= size) | broken
    if not bad.any():
        return error
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), values.shape))
    at = place[0] if len(place) == 1 else place
    exact = np.isfinite(indices._data[place]) and not broken[place]
    shown = values[place] if exact else indices._data[place]
    rule = "is not a whole number" if broken[place] else "is out of range"
    return IndexError(f"{name}: {what} {shown} at position {at} {rule}, it must be in 0 .. {size - 1} ({user_line()})")
