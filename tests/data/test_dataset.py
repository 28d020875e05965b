"""ArrayDataset: samples, slices, lengths."""

from __future__ import annotations

import numpy as np
import pytest

from gluonish import data, nd
from gluonish.nd import NDArray


def test_a_sample_takes_one_element_of_each_column() -> None:
    dataset = data.ArrayDataset(nd.arange(6).reshape(3, 2), np.array([7, 8, 9]), ["a", "b", "c"])
    row, number, letter = dataset[1]
    assert row.tolist() == [2, 3] and number == 8 and letter == "b"


def test_one_column_gives_elements_not_tuples() -> None:
    assert data.ArrayDataset([5, 6])[1] == 6


def test_a_slice_gives_columns() -> None:
    rows, letters = data.ArrayDataset(nd.arange(4), ["a", "b", "c", "d"])[1:3]
    assert rows.tolist() == [1, 2] and letters == ["b", "c"]


def test_datasets_can_be_columns() -> None:
    inner = data.ArrayDataset([1, 2, 3], [4, 5, 6])
    assert data.ArrayDataset(inner, [7, 8, 9])[2] == ((3, 6), 9)


def test_an_index_out_of_range_raises() -> None:
    with pytest.raises(IndexError):
        data.ArrayDataset(nd.arange(3), [1, 2, 3])[3]


@pytest.mark.parametrize("columns", [(), ([1, 2], [1, 2, 3]), (nd.zeros((2, 2)), nd.zeros((3, 2)))])
def test_columns_must_have_one_length(columns: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"of one length; got lengths \[.*test_dataset\.py:\d+"):
        data.ArrayDataset(*columns)


def test_a_batch_is_the_samples_stacked() -> None:
    dataset = data.ArrayDataset(nd.arange(8).reshape(4, 2), np.arange(4) / 4, [0, 1, 2, 3])
    places = np.array([3, 0, 3])
    batch = dataset.batch(places)
    expected = data.stack_samples([dataset[int(i)] for i in places])
    for ours, theirs in zip(batch, expected, strict=True):
        assert isinstance(ours, NDArray) and ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())


def test_a_batch_shares_no_memory_with_the_dataset() -> None:
    column = np.arange(4.0)
    batch = data.ArrayDataset(column).batch(np.array([0, 1]))
    batch[:] = 9
    assert column.tolist() == [0, 1, 2, 3]


def test_stacking_keeps_structure() -> None:
    batch = data.stack_samples([{"x": (nd.ones(2), 1)}, {"x": (nd.zeros(2), 2)}])
    assert batch["x"][0].tolist() == [[1, 1], [0, 0]] and batch["x"][1].tolist() == [1, 2]


def test_stacking_refuses_several_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\).*batchify_fn.*test_dataset\.py:\d+"):
        data.stack_samples([nd.ones(2), nd.ones(3)])


def test_stacking_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        data.stack_samples([])
