"""Making one batch of a list of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gluonish.nd import NDArray, array, stack
from gluonish.nd.errors import user_line


def stack_samples(samples: Sequence[Any]) -> Any:
    """A batch of a list of samples: arrays and numbers stacked along a new first axis, tuples and dicts part by part.

    Shapes: N samples of shape (...) -> (N, ...).
    Raises: ValueError if there are no samples or they do not have one shape.

    >>> from gluonish.data import stack_samples
    >>> stack_samples([{"x": [1.0, 2.0], "y": 0}, {"x": [3.0, 4.0], "y": 1}])["y"].tolist()
    [0, 1]
    """
    if not samples:
        raise ValueError(f"stack_samples needs at least one sample ({user_line()})")
    first = samples[0]
    if isinstance(first, tuple):
        return tuple(stack_samples(part) for part in zip(*samples, strict=True))
    if isinstance(first, dict):
        return {name: stack_samples([sample[name] for sample in samples]) for name in first}
    shapes = {tuple(sample.shape) if isinstance(sample, NDArray) else np.shape(sample) for sample in samples}
    if len(shapes) > 1:
        raise ValueError(
            f"the samples of a batch must have one shape to be stacked, got {sorted(shapes)}; "
            f"give DataLoader a batchify_fn that makes them fit ({user_line()})"
        )
    if isinstance(first, NDArray):
        return stack(samples)
    return array(np.stack(samples) if isinstance(first, (np.ndarray, np.generic)) else list(samples))
