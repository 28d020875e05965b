"""DataLoader: every sample once an epoch, in the order and the batches asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gluonish import data, nd, random


def _epoch(loader: data.DataLoader) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def _numbers(count: int) -> data.ArrayDataset:
    return data.ArrayDataset(nd.arange(count))


@pytest.mark.parametrize("count, size", [(0, 3), (1, 1), (2, 3), (6, 3), (7, 3), (8, 3), (9, 100)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_keep_gives_every_sample_once(count: int, size: int, shuffle: bool) -> None:
    loader = data.DataLoader(_numbers(count), size, shuffle)
    batches = _epoch(loader)
    assert sorted(sum(batches, [])) == list(range(count))
    assert len(batches) == len(loader) == -(-count // size)
    assert all(len(batch) == size for batch in batches[:-1])


def test_discard_leaves_out_what_does_not_fill_a_batch() -> None:
    loader = data.DataLoader(_numbers(7), 3, last_batch="discard")
    assert len(loader) == 2
    assert _epoch(loader) == _epoch(loader) == [[0, 1, 2], [3, 4, 5]]


def test_rollover_loses_nothing() -> None:
    loader = data.DataLoader(_numbers(7), 3, last_batch="rollover")
    lengths, epochs = [], []
    for _ in range(3):
        lengths.append(len(loader))
        epochs.append(_epoch(loader))
    assert epochs == [
        [[0, 1, 2], [3, 4, 5]],
        [[6, 0, 1], [2, 3, 4]],
        [[5, 6, 0], [1, 2, 3], [4, 5, 6]],
    ]
    assert lengths == [2, 2, 3]


def test_an_epoch_left_early_does_not_disturb_the_next() -> None:
    loader = data.DataLoader(_numbers(7), 3, last_batch="rollover")
    next(iter(loader))
    assert _epoch(loader) == [[6, 0, 1], [2, 3, 4]]


def test_two_iterations_can_run_side_by_side() -> None:
    loader = data.DataLoader(_numbers(4), 2)
    assert [(a.tolist(), b.tolist()) for a, b in zip(loader, loader)] == [([0, 1], [0, 1]), ([2, 3], [2, 3])]


def test_shuffling_follows_the_seed_and_changes_every_epoch() -> None:
    loader = data.DataLoader(_numbers(20), 20, shuffle=True)
    random.seed(3)
    first, second = _epoch(loader), _epoch(loader)
    random.seed(3)
    assert _epoch(loader) == first and _epoch(loader) == second
    assert first != second and first != [list(range(20))]


def test_columns_stay_together_when_shuffled() -> None:
    images, labels = data.digits()
    loader = data.DataLoader(data.ArrayDataset(images, labels), 500, shuffle=True)
    by_image = {image.tobytes(): label for image, label in zip(images.asnumpy(), labels.tolist())}
    for batch, answers in loader:
        assert answers.dtype == np.int64 and batch.shape[1:] == (1, 8, 8)
        assert [by_image[image.tobytes()] for image in batch.asnumpy()] == answers.tolist()


class _Squares:
    """A dataset that is not made of arrays."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return {"x": index, "y": float(index * index)}


def test_any_dataset_will_do() -> None:
    batches = list(data.DataLoader(_Squares(), 2))
    assert [batch["y"].tolist() for batch in batches] == [[0, 1], [4, 9], [16]]
    assert batches[0]["x"].dtype == np.int64 and batches[0]["y"].dtype == np.float32


def test_an_array_is_a_dataset() -> None:
    assert _epoch(data.DataLoader(nd.arange(3), 2)) == [[0, 1], [2]]


def test_batchify_fn_makes_the_batch() -> None:
    assert list(data.DataLoader(_numbers(3), 2, batchify_fn=len)) == [2, 1]


@pytest.mark.parametrize("size", [0, -1, 2.0, "3", None, True])
def test_a_batch_size_is_a_whole_number_from_1_up(size: Any) -> None:
    with pytest.raises(ValueError, match=r"batch_size must be a whole number from 1 up.*test_loader\.py:\d+"):
        data.DataLoader(_numbers(3), size)


def test_an_unknown_last_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\('keep', 'discard', 'rollover'\), got 'drop' \(test_loader\.py:\d+"):
        data.DataLoader(_numbers(3), 2, last_batch="drop")
