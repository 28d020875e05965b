"""What cannot be compiled or goes wrong inside a program: an error at the user's line that says what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import hybridize
from gluonish.hybrid.graph import TraceError


def line_of(function: Callable[..., Any], offset: int = 1) -> str:
    return f"test_errors.py:{function.__code__.co_firstlineno + offset}"


def branch(x: Any) -> Any:
    if x.sum() > 0:
        return x
    return -x


def loop(x: Any) -> Any:
    while (x < 10).all():
        x = x * 2
    return x


def choose_by_value(x: Any) -> Any:
    return x if x[0] else -x


def as_int(x: Any) -> Any:
    return x[: int(x[0])]


def as_float(x: Any) -> Any:
    return x * float(x.max())


def as_numpy(x: Any) -> Any:
    return nd.array(np.sort(x.asnumpy()))


def as_list(x: Any) -> Any:
    return x * x.tolist()[0]


def as_item(x: Any) -> Any:
    return x - x.min().item()


def as_index(x: Any) -> Any:
    return [1, 2, 3][x.argmax()]


def contains(x: Any) -> Any:
    return x if 3 in x else -x


def numpy_function(x: Any) -> Any:
    return np.asarray(x) * 2


def iterate_numbers(x: Any) -> Any:
    return sum(float(v) for v in x)


def masked(x: Any) -> Any:
    return x[x > 0]


def flat(x: Any) -> Any:
    return nd.array(x)


VALUES = [
    branch,
    loop,
    choose_by_value,
    as_int,
    as_float,
    as_numpy,
    as_list,
    as_item,
    as_index,
    contains,
    numpy_function,
    masked,
]


@pytest.mark.parametrize("function", VALUES, ids=lambda f: f.__name__)
def test_python_asks_for_values(function: Callable[..., Any]) -> None:
    compiled = hybridize(function)
    with pytest.raises(TraceError, match="while a hybridized Block is traced there are none") as caught:
        compiled(nd.array([1.0, 2.0, 3.0]))
    text = str(caught.value)
    assert line_of(function) in text and "nd.where" in text, text
    assert not compiled.variants
    assert "test_errors.py" in str(caught.traceback[-1].path) or "gluonish" in str(caught.traceback[-1].path)


def test_values_inside_nested_blocks_name_the_inner_line() -> None:
    class Inner(gl.HybridBlock):
        def forward(self, x: Any) -> Any:
            return x if x.max() > 1 else x * 2

    net = nn.HybridSequential(nn.Dense(3, in_units=3), Inner())
    net.initialize()
    net.hybridize()
    for _ in range(2):
        with pytest.raises(TraceError, match=line_of(Inner.forward)):
            net(nd.ones((2, 3)))
    net.hybridize(False)
    assert net(nd.ones((2, 3))).shape == (2, 3)


def test_assignments_that_cannot_be_traced() -> None:
    def mixed(x: Any) -> Any:
        y = x * 2
        y[1:, nd.array([0, 1], dtype="int64")] = 1
        return y

    def for_each(x: Any) -> Any:
        y = x * 2
        y[nd.array([True, False, True])] = nd.ones((2, 3))
        return y

    for function in (mixed, for_each):
        with pytest.raises(TraceError, match=rf"cannot be traced.*nd.where.*{line_of(function, 2)}"):
            hybridize(function)(nd.ones((3, 3)))


def test_printing_a_traced_array_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        print(x)
        return x * 2

    compiled = hybridize(f)
    compiled(nd.ones((2, 3)))
    compiled(nd.ones((2, 3)))
    assert capsys.readouterr().out.startswith("<traced (2, 3) float32")


def test_errors_of_ops_are_those_of_eager_mode() -> None:
    w = nd.ones((4, 5))
    cases: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (lambda x: x + nd.ones((2, 5)), (nd.ones((3, 4)),)),
        (lambda x: x @ w, (nd.ones((2, 3)),)),
        (lambda x: x.reshape((7, -1)), (nd.ones((3, 4)),)),
        (lambda x: x[5], (nd.ones((3, 4)),)),
        (lambda x: nd.max(x, 1), (nd.ones((3, 0)),)),
        (lambda x: nd.concat([x, w]), (nd.ones((3, 4)),)),
        (lambda x: x.sum(3), (nd.ones((3, 4)),)),
        (lambda x: nd.convolution(x, nd.ones((1, 1, 3, 3))), (nd.ones((1, 1, 2, 2)),)),
        (lambda x: x & x, (nd.ones((3,)),)),
        (lambda x: nd.take(x, x), (nd.ones((3,)),)),
        (lambda x: x.split(5), (nd.ones((3,)),)),
    ]
    for function, args in cases:
        with pytest.raises((ValueError, TypeError, IndexError)) as eager:
            function(*args)
        with pytest.raises(type(eager.value)) as hybrid:
            hybridize(function)(*args)
        assert str(eager.value) == str(hybrid.value) and "test_errors.py:" in str(hybrid.value)


# --- indices ----------------------------------------------------------------------------------------------------------
TABLE = np.arange(20, dtype=np.float32).reshape(5, 4)
LOOKUPS: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "take": (lambda x, i: nd.take(x, i, 0) * 2, [[0, 4], [2, 1]], [[0, 4], [7, 1]]),
    "take along columns": (lambda x, i: nd.take(x + 1, i, 1), [3, -4], [0, -5]),
    "take 0-d": (lambda x, i: nd.take(x, i), 3, 5),
    "indexing": (lambda x, i: x[i] + x[0], [1, 2], [1, 5]),
    "pick": (lambda x, i: nd.pick(nd.exp(x), i), [0, 1, 2, 3, -1], [0, 1, 4, 3, 9]),
    "one_hot": (lambda x, i: nd.one_hot(i, 4) + x, [0, 1, 2, 3, -4], [0, 1, 2, 3, -5]),
    "two arrays": (lambda x, i: x[i, i] * 2, [0, 3], [0, 9]),
    "slices and arrays": (lambda x, i: x[1:, i], [0, -4], [4, 0]),
    "along an axis": (lambda x, i: nd.take_along_axis(x, i.expand_dims(1), 1), [0, 1, 2, 3, -1], [0, 1, 2, 3, 4]),
    "put along an axis": (
        lambda x, i: nd.put_along_axis(x, i.expand_dims(1), 2.0, 1),
        [0, 1, 2, 3, -1],
        [9, 1, 2, 3, 1],
    ),
    "index_add": (lambda x, i: nd.index_add(x * 2, i, 1.0), [0, 0], [0, 5]),
    "index_update": (lambda x, i: nd.index_update(x, i, 1.0, axis=1), [0, 3], [0, -5]),
    "softmax loss": (lambda x, i: -nd.log_softmax(x).pick(i).mean(), [0, 1, 2, 3, 3], [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_an_index_out_of_range(name: str, dtype: str) -> None:
    function, good, bad = LOOKUPS[name]
    x = nd.array(TABLE)
    x.attach_grad()
    good, bad = (nd.NDArray(np.asarray(v, dtype)) for v in (good, bad))
    compiled = hybridize(function)
    for recorded in (False, True):
        for _ in range(2):
            with pytest.raises(IndexError) as eager:
                function(x, bad)
            with pytest.raises(IndexError) as hybrid:
                if recorded:
                    with autograd.record():
                        compiled(x, bad)
                else:
                    compiled(x, bad)
            assert str(eager.value) == str(hybrid.value) and "test_errors.py:" in str(hybrid.value)
        assert not autograd.is_recording()
        with autograd.record() if recorded else autograd.pause():
            out = compiled(x, good)
        assert np.allclose(out.asnumpy(), function(x, good).asnumpy(), rtol=1e-5)
    assert len(compiled.variants) == 2


def test_looking_up_in_nothing() -> None:
    empty, none = nd.zeros((0, 3)), nd.NDArray(np.zeros(0, np.int64))
    for function in (
        lambda x, i: nd.take(x, i),
        lambda x, i: nd.pick(x.swapaxes(0, 1), i),
        lambda x, i: nd.one_hot(i, 0),
    ):
        compiled = hybridize(function)
        with pytest.raises(IndexError, match="index 0 at position 0 is out of range for size 0"):
            compiled(empty, nd.NDArray(np.zeros(3, np.int64)))
    assert hybridize(lambda x, i: nd.take(x, i))(empty, none).shape == (0, 3)


def test_unsigned_indices_do_not_count_from_the_end() -> None:
    x = nd.ones((4,))
    for dtype in ("uint8", "uint32", "uint64"):
        index = np.array([0, np.iinfo(dtype).max], dtype)
        with pytest.raises(IndexError):
            hybridize(lambda x, i: nd.take(x, i))(x, nd.NDArray(index))


def test_many_indices_on_many_threads_name_one_that_is_wrong(rng: np.random.Generator) -> None:
    x = nd.array(rng.standard_normal((50, 64)).astype(np.float32))
    index = rng.integers(0, 50, 40_000)
    bad = index.copy()
    bad[[100, 20_000, 39_999]] = 77, 88, 99
    compiled = hybridize(lambda x, i: nd.take(x, i).sum(1))
    for _ in range(5):
        with pytest.raises(IndexError) as caught:
            compiled(x, nd.NDArray(bad))
        value, place = (int(str(caught.value).split(word)[1].split()[0]) for word in ("index ", "position "))
        assert bad[place] == value
        assert np.allclose(compiled(x, nd.NDArray(index)).asnumpy(), x.asnumpy()[index].sum(1), rtol=1e-3, atol=1e-3)


def test_an_index_inside_a_net() -> None:
    net = nn.HybridSequential(nn.Embedding(10, 3), nn.Dense(2, flatten=False))
    net.initialize()
    for active in (False, True):
        net.hybridize(active)
        with pytest.raises(IndexError, match=r"index 11 at position \(1, 1\) is out of range"):
            net(nd.NDArray(np.array([[1, 2], [3, 11]])))
        with pytest.raises(IndexError, match=r"index -1 at position \(0, 1\) is out of range"):
            net(nd.NDArray(np.array([[1, -1]])))
        assert net(nd.NDArray(np.array([[1, 2]]))).shape == (1, 2, 2)


def test_an_error_in_forward_leaves_everything_as_it_was() -> None:
    state = nd.zeros((2,))
    broken = [True]

    def f(x: Any) -> Any:
        state[:] = state + 1
        if broken[0]:
            raise RuntimeError("a bug in forward")
        return x * 2

    compiled = hybridize(f)
    with autograd.record(), pytest.raises(RuntimeError, match="a bug in forward"):
        compiled(nd.ones((2,)))
    assert state.tolist() == [0, 0] and not compiled.variants and (nd.ones((2,)) + 1).tolist() == [2, 2]
    broken[0] = False
    assert compiled(nd.ones((2,))).tolist() == [2, 2] and state.tolist() == [1, 1]


def test_a_traced_array_that_escapes_is_refused_clearly() -> None:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        kept.append(x * 2)
        return x

    hybridize(f)(nd.ones((2,)))
    for use in (lambda y: y.asnumpy(), lambda y: float(y.sum()), lambda y: y + 1):
        with pytest.raises((TraceError, ValueError, TypeError), match=r"test_errors\.py"):
            use(kept[0])
