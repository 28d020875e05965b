"""DataLoader: the samples of a dataset in batches, in order or shuffled.

Works in the calling process. Deliberately not here: worker processes and prefetching.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gluonish.data.dataset import Dataset
from gluonish.data.stacking import stack_samples
from gluonish.nd import random
from gluonish.nd.errors import user_line

LAST_BATCH = ("keep", "discard", "rollover")


class DataLoader:
    """Batches of `batch_size` samples; iterating once is one epoch.

    shuffle: a new random order every epoch, drawn from `gluonish.random` (so `random.seed` fixes it).
    last_batch: what becomes of the N % batch_size samples that do not fill a batch: "keep" gives them as a smaller
        batch, "discard" leaves them out, "rollover" puts them at the beginning of the next epoch.
    batchify_fn: makes a batch of a list of samples; `stack_samples` unless told otherwise.

    Raises: ValueError for a batch size below 1 or an unknown `last_batch`.

    >>> from gluonish import data
    >>> loader = data.DataLoader(data.ArrayDataset([10, 11, 12, 13, 14]), batch_size=2)
    >>> [batch.tolist() for batch in loader]
    [[10, 11], [12, 13], [14]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        last_batch: str = "keep",
        batchify_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(
                f"DataLoader: batch_size must be a whole number from 1 up, got {batch_size!r} ({user_line()})"
            )
        if last_batch not in LAST_BATCH:
            raise ValueError(f"DataLoader: last_batch must be one of {LAST_BATCH}, got {last_batch!r} ({user_line()})")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.last_batch = last_batch
        self.batchify_fn = batchify_fn
        self._rolled = np.zeros(0, np.int64)  # samples that the epoch before has left to the next

    def __len__(self) -> int:
        """The number of batches of the next epoch."""
        samples = len(self.dataset) + len(self._rolled)
        return -(-samples // self.batch_size) if self.last_batch == "keep" else samples // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        order = np.concatenate([self._rolled, self._order()])
        whole = len(order) // self.batch_size * self.batch_size
        if self.last_batch == "rollover":
            self._rolled = order[whole:]
        if self.last_batch != "keep":
            order = order[:whole]
        return (self._batch(order[i : i + self.batch_size]) for i in range(0, len(order), self.batch_size))

    def _order(self) -> np.ndarray:
        count = len(self.dataset)
        return random.permutation(count).asnumpy() if self.shuffle else np.arange(count)

    def _batch(self, indices: np.ndarray) -> Any:
        if self.batchify_fn is None and hasattr(self.dataset, "batch"):
            return self.dataset.batch(indices)
        return (self.batchify_fn or stack_samples)([self.dataset[int(i)] for i in indices])
