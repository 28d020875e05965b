"""Arrays that a function reads without being handed them: changes are seen, updates happen once, in the eager order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function, hybridize
from gluonish.hybrid.graph import TraceError


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.asarray(rng.standard_normal(shape)).astype(dtype))


def close(a: Any, b: Any, tolerance: float = 1e-5) -> bool:
    a, b = a.asnumpy(), b.asnumpy()
    return (a.shape, a.dtype) == (b.shape, b.dtype) and np.allclose(a, b, tolerance, tolerance)


# --- changed from outside ---------------------------------------------------------------------------------------------
def test_every_way_to_change_a_weight_is_seen(rng: np.random.Generator, tmp_path: Path) -> None:
    """The packed weight, and what is folded into it, are made anew."""
    net = nn.HybridSequential(nn.Dense(20, activation="relu"), nn.Dense(5))
    net.initialize("normal")
    x = floats(rng, 4, 7)
    net(x)
    weight = net[0].weight
    net.save_parameters(tmp_path / "first.safetensors")
    whole = weight.reshape((-1,))  # shares memory

    def train() -> None:
        trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
        with autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        trainer.step(1)

    net.hybridize()
    seen = net(x).asnumpy()
    changes: list[Callable[[], Any]] = [
        lambda: weight.set_data(floats(rng, 20, 7)),
        lambda: weight.__setitem__(slice(None), floats(rng, 20, 7)),
        lambda: weight.__setitem__((slice(3, 9), 2), 1.0),
        lambda: whole.__setitem__(slice(None), 0.3),
        lambda: weight[2:4].__setitem__(slice(None), -1.0),
        lambda: weight.__imul__(0.5),
        lambda: net.load_parameters(tmp_path / "first.safetensors"),
        train,
        train,
        lambda: net.initialize("uniform", force_reinit=True),
        lambda: net[1].bias.set_data(nd.ones((5,))),
    ]
    for number, change in enumerate(changes):
        change()
        hybrid = net(x)
        net.hybridize(False)
        eager = net(x)
        net.hybridize()
        assert close(eager, hybrid, 1e-4) and not np.array_equal(hybrid.asnumpy(), seen), f"change {number}"
        assert close(net(x), eager, 1e-4)
        seen = hybrid.asnumpy()


def test_a_cast_net_computes_in_the_new_dtype(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(nn.Dense(4, in_units=3), nn.BatchNorm(in_channels=4))
    net.initialize("normal")
    net.hybridize()
    x = floats(rng, 5, 3)
    single = net(x)
    net.cast("float64")
    double = net(x.astype("float64"))
    assert double.dtype == np.float64 and np.allclose(single.asnumpy(), double.asnumpy(), rtol=1e-5, atol=1e-6)
    net.cast("float32")
    assert close(net(x), single)


def test_memory_that_is_replaced_is_seen(rng: np.random.Generator) -> None:
    w = floats(rng, 6, 6)
    compiled = hybridize(lambda x: x @ w + w.sum())
    x = floats(rng, 3, 6)
    compiled(x)
    for data in (floats(rng, 6, 6)._data, floats(rng, 6, 12)._data[:, ::2], floats(rng, 6, 6)._data.T):
        w._data = data
        assert close(compiled(x), x @ w + w.sum(), 1e-4)
        w._data[0] += 1  # nobody told: only the memory itself can
        w._version[0] += 1
        assert close(compiled(x), x @ w + w.sum(), 1e-4)
    assert len(compiled.variants) == 1


def test_a_captured_array_of_another_shape_or_dtype_makes_a_variant(rng: np.random.Generator) -> None:
    w = floats(rng, 4)
    compiled = hybridize(lambda x: x * w)
    x = floats(rng, 3, 4)
    compiled(x)
    w._data = np.ones((3, 1), np.float32)
    assert close(compiled(x), x * w)
    w._data = np.ones((3, 1), np.float64)
    assert close(compiled(x), x * w) and compiled(x).dtype == np.float64
    assert "captured array" in compiled.explain()


def test_what_depends_on_captured_arrays_alone_is_computed_once_and_right(rng: np.random.Generator) -> None:
    a, b = floats(rng, 4, 6), floats(rng, 4, 6)
    index = nd.NDArray(np.array([1, 0, 3]))
    functions: list[Callable[[Any], Any]] = [
        lambda x: x @ nd.tanh(a + b),
        lambda x: x * nd.pad(a, [(0, 0), (1, 0)])[:, :6].sum(0)[:4],
        lambda x: nd.concat([a, x @ b, a * 2]).sum(0),
        lambda x: nd.concat([a[:, :4], x]) * 2,
        lambda x: nd.stack([a, b]).sum() * x,
        lambda x: x @ nd.softmax(a).swapaxes(0, 1).reshape((4, 6)),
        lambda x: x.sum() + nd.take(a, index, 0),
        lambda x: nd.matmul(nd.stack([x, x]), nd.matmul(b, a.swapaxes(0, 1))),
        lambda x: nd.matmul(x[:, :1].reshape((-1, 1, 1, 1)) if x.shape[0] == 2 else x[:1, :1].reshape((1, 1, 1, 1)),
                            a.reshape((2, 1, 1, 12))),
        lambda x: (a.astype("float64") * b).sum().astype("float32") * x,
        lambda x: (nd.zeros((4, 4)) + nd.arange(4).astype("float32")) * x[:1],
    ]  # fmt: skip
    for function in functions:
        compiled = hybridize(function)
        for rows in (2, 5):
            x = floats(rng, rows, 4)
            for _ in range(2):
                assert close(compiled(x), function(x), 1e-4)
            a[1] = 0.25
            b *= 2
            assert close(compiled(x), function(x), 1e-4)
            b *= 0.5


def test_batch_norm_is_folded_once_per_version(rng: np.random.Generator) -> None:
    net = nn.HybridSequential(
        nn.Conv2D(5, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"), nn.Conv2D(4, 1), nn.BatchNorm()
    )
    net.initialize("normal")
    x = floats(rng, 2, 3, 6, 6)
    net(x)
    net[1].running_mean.set_data(floats(rng, 5))
    net.hybridize()
    steps = [s for s in net._compile().variant_for(x).program.main if s.kernel is not None]
    assert len([s for s in steps if s.name == "convolution"]) == 2
    assert len(steps) <= 4  # and the permutations at the borders
    for _ in range(3):
        net.hybridize(False)
        eager = net(x)
        net.hybridize()
        assert close(net(x), eager, 1e-4)
        net[1].running_var.set_data(nd.ones((5,)) * 2)
        net[1].gamma[:] = floats(rng, 5)
        with autograd.train_mode():
            net(x)


# --- updates ----------------------------------------------------------------------------------------------------------
def both(make: Callable[[], tuple[Callable[..., Any], list[nd.NDArray]]], *args: nd.NDArray, calls: int = 3) -> None:
    """The same calls on two copies of a stateful function, one compiled: same results, same states."""
    (eager, states), (function, hybrid_states) = make(), make()
    compiled = hybridize(function)
    for _ in range(calls):
        a, b = eager(*args), compiled(*args)
        for x, y in zip(a if isinstance(a, tuple) else (a,), b if isinstance(b, tuple) else (b,)):
            assert close(x, y) if isinstance(x, nd.NDArray) else x == y
        assert all(close(s, t) for s, t in zip(states, hybrid_states))
    assert len(compiled.variants) == 1


def test_updates_are_the_eager_ones(rng: np.random.Generator) -> None:
    values = [floats(rng, 3).asnumpy() for _ in range(3)]

    def states() -> tuple[nd.NDArray, ...]:
        return tuple(nd.NDArray(v.copy()) for v in values)

    def counter() -> Any:
        a, b, _ = states()

        def f(x: Any) -> Any:
            a[:] = a + 1
            y = x * a.mean()  # the new value
            b[:] = b * 0.5 + a
            a[:] = a * 2
            return y, a, b + a

        return f, [a, b]

    def swap() -> Any:
        a, b, c = states()

        def f(x: Any) -> Any:
            old = a.reshape((1, 3)) * 1
            a[:] = b
            b[:] = c
            c[:] = old.reshape((3,))
            return x + a

        return f, [a, b, c]

    def same_value_twice() -> Any:
        a, b, c = states()

        def f(x: Any) -> Any:
            new = a + b
            a[:] = new
            c[:] = new
            b[:] = 4
            return new, x

        return f, [a, b, c]

    def from_argument() -> Any:
        a, b, _ = states()

        def f(x: Any) -> Any:
            a[:] = x
            b[:] = x.sum()
            return None

        return f, [a, b]

    def detached() -> Any:
        a, b, _ = states()

        def f(x: Any) -> Any:
            a[:] = a + 1
            return x * a.detach(), b.detach() * b

        return f, [a, b]

    def written_back() -> Any:
        a, b, _ = states()

        def f(x: Any) -> Any:
            b[:] = a
            a[:] = a
            return a * x

        return f, [a, b]

    for make in (counter, swap, same_value_twice, from_argument, detached, written_back):
        both(make, floats(rng, 3))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
def test_updates_in_any_dtype_and_layout(rng: np.random.Generator, dtype: str) -> None:
    values = rng.integers(0, 3, (4, 6)).astype(dtype)

    def make() -> Any:
        base = nd.NDArray(values.copy())
        state = nd.NDArray(base._data[:, ::2])  # not contiguous

        def f(x: Any) -> Any:
            state[:] = (state + x).astype(state.dtype)
            base[:] = base == 0 if dtype == "bool" else base * 1
            return state.sum()

        return f, [state]

    def plain() -> Any:
        state = nd.NDArray(values.copy())

        def f(x: Any) -> Any:
            state[:] = state + x.sum()
            return state

        return f, [state]

    def view() -> Any:
        state = nd.NDArray(values.copy()[:, ::2])

        def f(x: Any) -> Any:
            state[:] = state + x
            return state * 1

        return f, [state]

    for m in (plain, view):
        both(m, nd.NDArray(np.ones((4, 3), dtype)))


def test_updates_bump_the_version_once_per_call(rng: np.random.Generator) -> None:
    state = nd.zeros((3,))

    def f(x: Any) -> Any:
        state[:] = state + x
        return state.sum()

    compiled = hybridize(f)
    compiled(nd.ones((3,)))
    before = state._version[0]
    compiled(nd.ones((3,)))
    assert state._version[0] == before + 1 and state.tolist() == [2, 2, 2]
    reader = hybridize(lambda x: x @ (nd.zeros((3, 3)) + state))
    assert reader(nd.ones((1, 3))).tolist() == [[6, 6, 6]]
    compiled(nd.ones((3,)))
    assert reader(nd.ones((1, 3))).tolist() == [[9, 9, 9]]


def test_running_statistics_move_once_per_training_call(rng: np.random.Generator) -> None:
    x = floats(rng, 16, 4) * 3 + 2
    nets = []
    for compile_it in (False, True):
        net = nn.HybridSequential(nn.BatchNorm(in_channels=4))
        net.initialize()
        net.hybridize(compile_it)
        net(x)  # predict: nothing moves
        assert net[0].running_mean.tolist() == [0, 0, 0, 0]
        with autograd.record():
            out = net(x)
        out.backward()  # nor does it here
        with autograd.train_mode():
            net(x)
        nets.append(net)
    for name in ("running_mean", "running_var"):
        a, b = (getattr(net[0], name) for net in nets)
        assert close(a, b) and np.all(a.asnumpy() != 0)
    assert close(nets[0](x), nets[1](x))


def test_gradients_when_the_state_is_part_of_the_formula(rng: np.random.Generator) -> None:
    """The backward reads the state as it was in the forward, though the call has changed it."""
    w, x = floats(rng, 4), floats(rng, 3, 4)
    found = []
    for wrap in (lambda f: f, hybridize):
        state = nd.array([1.0, 2.0, 3.0, 4.0])
        w.attach_grad()

        def f(x: Any, state: Any = state) -> Any:
            old = state * 1.0
            state[:] = state + x.detach().sum(0)
            return (x * w * old).sum() + (w * state).sum()

        g = wrap(f)
        for _ in range(2):
            with autograd.record():
                y = g(x)
            y.backward()
            found.append((y.asnumpy(), w.grad.asnumpy(), state.asnumpy()))
    for a, b in zip(found[:2], found[2:]):
        assert all(np.allclose(s, t, rtol=1e-5, atol=1e-5) for s, t in zip(a, b))


def test_a_view_from_before_an_assignment_is_refused(rng: np.random.Generator) -> None:
    """In eager mode it would show the new values."""
    state = floats(rng, 2, 3)

    def f(x: Any) -> Any:
        first = state[0]
        state[:] = state * 2
        return x * first

    with pytest.raises(TraceError, match=r"view.*make the view after.*test_captured\.py"):
        hybridize(f)(nd.ones((3,)))

    def g(x: Any) -> Any:
        y = x * state[0]
        state[:] = state * 2
        return y, state[0], x * state.reshape((3, 2)).sum()

    copy = nd.NDArray(state.asnumpy())
    eager = g(nd.ones((3,)))
    state[:] = copy
    assert all(close(a, b) for a, b in zip(eager, hybridize(g)(nd.ones((3,)))))


def test_assigning_what_the_tape_needs_is_an_error_as_in_eager_mode() -> None:
    w, state = nd.ones((2,)), nd.ones((2,))
    w.attach_grad()

    def leak(x: Any) -> Any:
        state[:] = w * x
        return x

    def overwrite(x: Any) -> Any:
        w[:] = x
        return x

    for f in (leak, overwrite):
        for wrap in (lambda f: f, hybridize):
            with autograd.record(), pytest.raises(ValueError, match=r"gradient|tape.*test_captured\.py"):
                wrap(f)(nd.ones((2,)))
    hybridize(overwrite)(nd.ones((2,)) * 3)
    assert w.tolist() == [3, 3]


def test_a_failed_call_leaves_states_usable(rng: np.random.Generator) -> None:
    table, state = floats(rng, 5, 3), nd.zeros((3,))

    def f(i: Any) -> Any:
        state[:] = state + 1
        return nd.take(table, i) * state

    compiled = hybridize(f)
    reader = hybridize(lambda x: x @ (nd.zeros((3, 3)) + state))
    good = nd.NDArray(np.array([0, 4]))
    compiled(good)
    assert reader(nd.ones((1, 3))).tolist() == [[3, 3, 3]]
    with pytest.raises(IndexError):
        compiled(nd.NDArray(np.array([0, 5])))
    done = state.tolist()[0]
    assert reader(nd.ones((1, 3))).tolist() == [[3 * done] * 3]
    assert np.allclose(compiled(good).asnumpy(), table.asnumpy()[[0, 4]] * (done + 1))


def test_values_of_captured_arrays_that_python_reads_are_not_forgotten() -> None:
    """Either an error with advice, or a guard on the array."""
    scale = nd.array([2.0])
    f = hybridize(lambda x: x * float(scale))
    try:
        first = f(nd.ones((2,))).tolist()
    except TraceError:
        return
    scale[:] = 3
    assert first == [2, 2] and f(nd.ones((2,))).tolist() == [3, 3]


def test_a_detached_parameter_follows_its_array() -> None:
    w = nd.array([2.0])
    f = hybridize(lambda x: x * w.detach())
    assert f(nd.ones((2,))).tolist() == [2, 2]
    w._data = np.array([5.0], np.float32)  # as `cast` and `load_parameters` of other shapes do
    assert f(nd.ones((2,))).tolist() == [5, 5]


def test_a_detached_name_may_be_written_and_is_followed() -> None:
    w = nd.array([2.0])

    def f(x: Any) -> Any:
        w.detach()[:] = x
        w.detach()[:] = w + 1
        return w * 10

    compiled = hybridize(f)
    for value in (3.0, 4.0):
        assert compiled(nd.array([value])).tolist() == [10 * (value + 1)] and w.tolist() == [value + 1]


def test_arrays_that_shared_memory_and_do_so_no_more() -> None:
    w = nd.array([2.0])
    held = w.detach()
    f = hybridize(lambda x: x * w + held)
    assert f(nd.ones((1,))).tolist() == [4]
    w._data = np.array([5.0], np.float32)  # as `cast` and `load_parameters` of other shapes do
    assert f(nd.ones((1,))).tolist() == [7]


def test_in_place_operators_change_every_name_of_an_array() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        z = y
        y += 1
        return z

    x = nd.ones((2,))
    assert f(x).tolist() == [3, 3]
    assert hybridize(f)(x).tolist() == [3, 3]


def test_compiled_functions_without_a_watch_see_their_arrays(rng: np.random.Generator) -> None:
    store = {"w": floats(rng, 3)}
    compiled = compile_function(lambda x: x * store["w"], name="scaled")
    compiled(nd.ones((3,)))
    store["w"][:] = 7  # the same array: seen (another array would not be; that is what Blocks' watch is for)
    assert compiled(nd.ones((3,))).tolist() == [7, 7, 7]
