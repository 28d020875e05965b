"""Labels and tokens: indices for which a negative number is a mistake, not a place counted from the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from gluonish import nd
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line


def strict(indices: NDArray, size: Any) -> NDArray:
    """The indices as int64, negative ones moved so far down that indexing `size` elements refuses them too."""
    indices = indices.astype("int64")
    return nd.where(indices < 0, indices - size, indices)


def index_error(error: Exception, name: str, what: str, indices: NDArray, size: Any) -> Exception:
    """The IndexError of an op, reworded to name Block, position and value; itself where values are not known."""
    if not isinstance(indices._data, np.ndarray):
        return error
    with np.errstate(invalid="ignore"):  # NaN is no index, and no accident here
        values = indices._data.astype(np.int64)
    bad = (values < 0) | (values >= size)
    if not bad.any():
        return error
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), values.shape))
    at = place[0] if len(place) == 1 else place
    shown = values[place] if np.isfinite(indices._data[place]) else indices._data[place]
    return IndexError(
        f"{name}: {what} {shown} at position {at} is out of range, it must be in 0 .. {size - 1} ({user_line()})"
    )
