"""foreach, while_loop and cond: compiled they give what plain Python gives, values and gradients of both orders."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function, hybridize
from gluonish.hybrid.graph import TraceError, verify
from gluonish.nd.tree import flatten


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.asarray(rng.uniform(-1, 1, shape)).astype(dtype))


def outcome(function: Any, arguments: Any, watched: list[nd.NDArray]) -> list[np.ndarray]:
    """Results under recording, and the gradients of all watched arrays."""
    nd.random.seed(3)
    for x in watched:
        x.attach_grad()
    with autograd.record():
        results: list[nd.NDArray] = []
        flatten(function(*arguments), results)
        loss = sum((r.astype("float64") ** 2).sum() * (i + 1) for i, r in enumerate(results))
    loss.backward()
    return [a.asnumpy() for a in (*results, *(x.grad for x in watched))]


def check(function: Callable[..., Any], arguments: Any, captured: Any = (), tolerance: float = 1e-5) -> Any:
    """Compares a compiled function with the plain one, recorded and not; gives the compiled one."""
    compiled = hybridize(function)
    plain: list[nd.NDArray] = []
    fast: list[nd.NDArray] = []
    nd.random.seed(3)
    flatten(function(*arguments), plain)
    nd.random.seed(3)
    flatten(compiled(*arguments), fast)
    watched = [x for x in (*arguments, *captured) if isinstance(x, nd.NDArray) and x.dtype.kind == "f"]
    eager, hybrid = outcome(function, arguments, watched), outcome(compiled, arguments, watched)
    pairs = [
        *zip((x.asnumpy() for x in plain), (x.asnumpy() for x in fast), strict=True),
        *zip(eager, hybrid, strict=True),
    ]
    for a, b in pairs:
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.allclose(a, b, tolerance, tolerance), np.abs(a - b).max()
    for variant in compiled.variants:
        verify(variant.optimised)
    return compiled


def steps_of(compiled: Any) -> list[int]:
    return [len(variant.program.steps) for variant in compiled.variants]


# --- foreach ---------------------------------------------------------------------------------------------------------
def test_a_recurrent_cell_over_any_length(rng: np.random.Generator) -> None:
    w, v, b = floats(rng, 4, 4), floats(rng, 3, 4), floats(rng, 4)

    def f(x: nd.NDArray, h: nd.NDArray) -> Any:
        def body(x: nd.NDArray, h: nd.NDArray) -> Any:
            h = nd.tanh(x @ v + h @ w + b)
            return h * 2, h

        return nd.foreach(body, x, h)

    compiled = check(f, (floats(rng, 6, 2, 3), floats(rng, 2, 4)), (w, v, b))
    traced, steps = len(compiled.variants), steps_of(compiled)
    for length, batch in ((3, 2), (11, 5), (200, 3)):
        x, h = floats(rng, length, batch, 3), floats(rng, batch, 4)
        outs, last = compiled(x, h)
        expected = f(x, h)
        assert np.allclose(outs.asnumpy(), expected[0].asnumpy(), 1e-5, 1e-5) and outs.shape[0] == length
        assert np.allclose(last.asnumpy(), expected[1].asnumpy(), 1e-5, 1e-5)
    assert len(compiled.variants) == traced and steps_of(compiled) == steps  # nothing was compiled for other lengths
    for length in (1, 0):
        check(f, (floats(rng, length, 2, 3), floats(rng, 2, 4)), (w, v, b))
    text = str(compiled.variants[0].optimised)
    assert "loop(" in text and "tanh(" in text
    assert "foreach" in compiled.explain() or "loop (test_control.py:" in compiled.explain()


def test_nested_structures_integers_and_several_data(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray, y: nd.NDArray) -> Any:
        def body(slices: Any, states: Any) -> Any:
            a, b = slices["a"], slices["b"][0]
            total, count = states
            total = total + a * b.astype(a.dtype) * count.astype(a.dtype)
            return {"t": total, "n": None, "c": [count, a]}, [total, count + 1]

        return nd.foreach(body, {"a": x, "b": [y]}, [x[0] * 0, nd.array(1)])

    y = nd.array(np.arange(5))
    check(f, (floats(rng, 5, 3), y))
    check(f, (floats(rng, 5, 3, dtype="float64"), y))


def test_data_that_is_a_view_and_slices_that_are_numbers(rng: np.random.Generator) -> None:
    w = nd.NDArray(np.asarray(rng.uniform(-1, 1, (4, 4)), "float32").T)

    def f(x: nd.NDArray) -> Any:
        return nd.foreach(lambda x, s: (x * s, s + (x * w).sum()), x, x[0] * 2)

    check(f, (nd.NDArray(np.asarray(rng.uniform(-1, 1, (3, 7)), "float32").T[:, 1]),), (w,))


def test_a_state_that_needs_a_gradient_only_later(rng: np.random.Generator) -> None:
    w = floats(rng, 3)

    def f(x: nd.NDArray) -> Any:
        def body(x: nd.NDArray, states: Any) -> Any:
            a, b, c = states
            return c * x, (a * w + x.detach(), a + b, b * 2 + c)

        return nd.foreach(body, x, tuple(nd.zeros(3) for _ in range(3)))

    check(f, (floats(rng, 4, 3),), (w,))


def test_what_is_detached_in_a_body_stays_detached(rng: np.random.Generator) -> None:
    w = floats(rng, 3)

    def f(x: nd.NDArray) -> Any:
        return nd.foreach(lambda x, h: (w.detach() * x + w * h, (h * x).detach() + w), x, x[0].detach())

    check(f, (floats(rng, 4, 3),), (w,))


def test_arrays_of_the_trace_around_it_are_closed_over(rng: np.random.Generator) -> None:
    w = floats(rng, 3, 3)

    def f(x: nd.NDArray, y: nd.NDArray) -> Any:
        z = nd.exp(nd.tanh(y @ w))  # small, so that rounding does not grow over the steps
        outs, h = nd.foreach(lambda x, h: (h * z, nd.tanh(h * w[0] + x * z)), x, y)
        return outs.mean(0) * z, h + y

    check(f, (floats(rng, 5, 2, 3), floats(rng, 2, 3)), (w,))


def test_outputs_and_states_are_values_of_their_step(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray) -> Any:
        total, gain = nd.zeros(3), floats(np.random.default_rng(1), 3)
        gain.attach_grad()

        def body(x: nd.NDArray, s: nd.NDArray) -> Any:
            total[:] = total + x.detach()
            return (total, s * 1, gain), total

        return nd.foreach(body, x, nd.zeros(3))

    x = floats(rng, 4, 3)
    (totals, before, _), last = f(x)
    sums = x.asnumpy().cumsum(0)
    assert np.allclose(totals.asnumpy(), sums, 1e-5, 1e-5) and np.allclose(last.asnumpy(), sums[-1], 1e-5, 1e-5)
    assert np.allclose(before.asnumpy(), sums - x.asnumpy(), 1e-5, 1e-5)


# --- while_loop ------------------------------------------------------------------------------------------------------
def test_a_while_loop_whose_length_values_decide(rng: np.random.Generator) -> None:
    w = floats(rng, 3)

    def f(x: nd.NDArray, limit: nd.NDArray) -> Any:
        def body(i: nd.NDArray, x: nd.NDArray) -> Any:
            x = nd.sin(x * w) + x
            return (x, i), (i + 1, x)

        return nd.while_loop(lambda i, x: i < limit, body, (nd.array(0), x), 8)

    for limit in (5, 0, 1, 8, 20):
        compiled = check(f, (floats(rng, 2, 3), nd.array(limit)), (w,))
    for limit in (2, 7, 0):
        (outs, numbers), (i, _) = compiled(floats(rng, 2, 3), nd.array(limit))
        assert i.item() == limit and numbers.tolist() == [*range(limit), *[0] * (8 - limit)]
        assert not outs.asnumpy()[limit:].any()
    assert len(compiled.variants) == 2


def test_a_while_loop_of_one_variable_and_without_outputs(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray) -> Any:
        return nd.while_loop(lambda x: (x**2).sum() < 50, lambda x: (None, x * 1.5), x, 100)

    check(f, (floats(rng, 4),))


# --- cond ------------------------------------------------------------------------------------------------------------
def test_both_sides_of_a_branch(rng: np.random.Generator) -> None:
    w, v = floats(rng, 3), floats(rng, 3)

    def f(x: nd.NDArray, y: nd.NDArray) -> Any:
        z = x * v
        return nd.cond(
            lambda x, y: x.sum() > y.sum(),
            lambda x, y: {"a": x * w + z, "b": y},
            lambda x, y: {"a": nd.exp(x), "b": y * v + z},
            [x, y],
        )

    for sign in (1, -1):
        compiled = check(f, (floats(rng, 2, 3) + 3 * sign, floats(rng, 2, 3)), (w, v))
    x = floats(rng, 4, 3)
    for sign in (1, -1, 1):
        assert np.allclose(compiled(x + 3 * sign, x)["a"].asnumpy(), f(x + 3 * sign, x)["a"].asnumpy(), 1e-5, 1e-5)


def test_only_the_chosen_side_runs(rng: np.random.Generator) -> None:
    table = floats(rng, 5, 2)
    f = hybridize(lambda i: nd.cond(i.max() < 5, lambda: nd.take(table, i), lambda: nd.zeros((i.shape[0], 2)) - 1))
    assert f(nd.array([1, 4])).shape == (2, 2)
    assert f(nd.array([1, 7])).tolist() == [[-1, -1], [-1, -1]]


# --- together --------------------------------------------------------------------------------------------------------
def test_loops_and_branches_in_one_another(rng: np.random.Generator) -> None:
    w, v = floats(rng, 3), floats(rng, 3, 3)

    def f(x: nd.NDArray, h: nd.NDArray) -> Any:
        def inner(x: nd.NDArray, h: nd.NDArray) -> Any:
            h = nd.cond(h.sum() > 0, lambda: h * w + x, lambda: nd.tanh(h @ v) - x)
            return h * x, h

        def outer(xs: nd.NDArray, h: nd.NDArray) -> Any:
            outs, h = nd.foreach(inner, xs, h)
            _, (k, h) = nd.while_loop(
                lambda k, h: (k < 3) & (nd.abs(h).max() < 2),
                lambda k, h: (None, (k + 1, h * 1.25 * w)),
                (nd.array(0), h),
                4,
            )
            return outs.sum(0) + k.astype(h.dtype), h

        return nd.foreach(outer, x, h)

    compiled = check(f, (floats(rng, 3, 4, 3), floats(rng, 3)), (w, v), 1e-4)
    compiled(floats(rng, 5, 2, 3), floats(rng, 3))


class Cell(nn.HybridBlock):
    """A body with layers, running statistics and dropout."""

    def __init__(self) -> None:
        self.dense = nn.Dense(4, flatten=False)
        self.norm = nn.BatchNorm()
        self.drop = nn.Dropout(0.4)

    def forward(self, x: nd.NDArray, h: nd.NDArray) -> Any:
        def body(x: nd.NDArray, h: nd.NDArray) -> Any:
            h = self.drop(self.norm(nd.tanh(self.dense(x) + h)))
            return h, h

        noise = nd.random.uniform(shape=h.shape)
        outs, h = nd.foreach(body, x, h + noise)
        return outs, nd.dropout(h, 0.3)


def test_layers_random_numbers_and_statistics_inside_a_body(rng: np.random.Generator) -> None:
    x, h = floats(rng, 5, 6, 3), floats(rng, 6, 4)
    results = []
    for hybrid in (False, True):
        net = Cell()
        nd.random.seed(1)
        net.initialize()
        net(x, h)
        if hybrid:
            net.hybridize()
        found = [*outcome(net, (x, h), [x, h, *(p for p in net.collect_params().values() if p.grad_req != "null")])]
        found += [p.asnumpy() for p in net.collect_params().values()]
        found += [y.asnumpy() for y in net(x, h)]
        results.append(found)
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, 1e-4, 1e-4), np.abs(a - b).max()
        if a.shape == (5, 6, 4):
            assert ((a == 0) == (b == 0)).all()  # the same elements were dropped


def test_random_numbers_in_while_loops_and_branches(rng: np.random.Generator) -> None:
    def f(x: nd.NDArray, n: nd.NDArray) -> Any:
        draw = lambda: nd.random.uniform(shape=x.shape)  # noqa: E731
        y = nd.cond(n > 2, lambda: x + draw(), lambda: x * draw())
        outs, _ = nd.while_loop(lambda i: i < n, lambda i: (draw() * y, i + 1), nd.array(0), 5)
        return outs, draw()

    compiled = check(f, (floats(rng, 3), nd.array(3)))
    for n in (0, 1, 5):
        nd.random.seed(5)
        expected = f(x := floats(rng, 3), nd.array(n))
        nd.random.seed(5)
        assert all((a == b).all() for a, b in zip(expected, compiled(x, nd.array(n))))


def test_second_order_gradients(rng: np.random.Generator) -> None:
    w = floats(rng, 3, 3)

    def energy(x: nd.NDArray, h: nd.NDArray) -> nd.NDArray:
        def body(x: nd.NDArray, h: nd.NDArray) -> Any:
            h = nd.cond(x.sum() > 0, lambda: nd.tanh(h @ w + x), lambda: nd.sin(h * x) @ w)
            return h**2, h

        outs, h = nd.foreach(body, x, h)
        more, (_, h) = nd.while_loop(
            lambda i, h: i < 2, lambda i, h: (h**3, (i + 1, nd.sin(h @ w))), (nd.array(0), h), 3
        )
        return outs.sum() + (h**2).sum() + more.sum()

    def penalty(x: nd.NDArray, h: nd.NDArray) -> Any:
        a = energy(x, h)
        gx, gh, gw = autograd.grad(a, [x, h, w], create_graph=True)
        return gx, gh, gw

    for f in (penalty, hybridize(energy)):
        results = []
        for compiled in (False, True):
            x, h = floats(np.random.default_rng(1), 4, 2, 3), floats(np.random.default_rng(2), 2, 3)
            if f is penalty:
                w.attach_grad()
                run: Any = hybridize(penalty) if compiled else penalty
                results.append(outcome(run, (x, h), [x, h, w]))
            else:  # the call itself is differentiated twice, from outside
                for a in (x, h, w):
                    a.attach_grad()
                with autograd.record():
                    first = autograd.grad((f if compiled else energy)(x, h), [x, h, w], create_graph=True)
                    loss = sum((g**2).sum() for g in first)
                loss.backward()
                results.append([a.asnumpy() for a in (*first, x.grad, h.grad, w.grad)])
        for a, b in zip(*results, strict=True):
            assert np.allclose(a, b, 1e-4, 1e-4), np.abs(a - b).max()


def test_a_whole_training_step(rng: np.random.Generator) -> None:
    x, h, y = floats(rng, 4, 5, 3), floats(rng, 5, 4), floats(rng, 5, 4)
    results = []
    for hybrid in (False, True):
        nd.random.seed(2)
        net = Cell()
        net.initialize()
        net(x, h)
        trainer = gl.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})

        def step(x: nd.NDArray, h: nd.NDArray, y: nd.NDArray, net: Any = net, trainer: Any = trainer) -> nd.NDArray:
            with autograd.record():
                loss = ((net(x, h)[1] - y) ** 2).mean()
            loss.backward()
            trainer.step(5)
            return loss

        run = gl.hybridize(step) if hybrid else step
        losses = [run(x, h, y).item() for _ in range(4)]
        results.append([np.array(losses), *(p.asnumpy() for p in net.collect_params().values())])
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, 1e-4, 1e-5), np.abs(a - b).max()


def test_weights_replaced_and_changed(rng: np.random.Generator) -> None:
    w = floats(rng, 3, 3)
    f = lambda x: nd.foreach(lambda x, h: (h, nd.tanh(h @ w + x)), x, x[0] * 0)  # noqa: E731
    compiled = hybridize(f)
    x = floats(rng, 4, 2, 3)
    for _ in range(2):
        assert np.allclose(compiled(x)[1].asnumpy(), f(x)[1].asnumpy(), 1e-5, 1e-5)
        w[:] = floats(rng, 3, 3)
        assert np.allclose(compiled(x)[1].asnumpy(), f(x)[1].asnumpy(), 1e-5, 1e-5)
        w._data = np.asarray(rng.uniform(-1, 1, (3, 3)), "float32").T
    assert len(compiled.variants) == 1


def test_several_threads_in_one_loop(rng: np.random.Generator) -> None:
    w = floats(rng, 3, 3)
    f = lambda x: nd.foreach(lambda x, h: (h, nd.tanh(h @ w + x)), x, x[0] * 0)[0]  # noqa: E731
    compiled = hybridize(f)
    inputs = [floats(rng, 30, 2, 3) for _ in range(4)]
    expected = [f(x).asnumpy() for x in inputs]
    compiled(inputs[0])
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not np.allclose(compiled(inputs[number]).asnumpy(), expected[number], 1e-5, 1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_sizes_of_states_may_be_equal_by_a_guard_only(rng: np.random.Generator) -> None:
    """A cell of one's own: states come out with the sizes of its inputs and weights, which have symbols of theirs."""
    weight = floats(rng, 7, 4)

    def cells(x: nd.NDArray, h: nd.NDArray) -> Any:
        def body(row: nd.NDArray, state: nd.NDArray) -> tuple[nd.NDArray, nd.NDArray]:
            state = nd.tanh(nd.concat([row, state], axis=1) @ weight)
            return state * 2, state

        return nd.foreach(body, x, h)

    def either(x: nd.NDArray, y: nd.NDArray) -> nd.NDArray:
        return nd.cond(x.sum() > 0, lambda: x * 2, lambda: y - 1)

    compiled = check(cells, (floats(rng, 5, 2, 3), floats(rng, 2, 4)), [weight])
    check(either, (floats(rng, 3, 4), floats(rng, 3, 4)))
    x, h = floats(rng, 6, 8, 3), floats(rng, 8, 4)
    assert np.allclose(compiled(x, h)[1].asnumpy(), cells(x, h)[1].asnumpy(), 1e-5, 1e-5)
    with pytest.raises(ValueError, match="same shapes and dtypes"):
        hybridize(either)(floats(rng, 3, 4), floats(rng, 3, 5))


# --- errors ----------------------------------------------------------------------------------------------------------
def test_errors_are_for_the_user(rng: np.random.Generator) -> None:
    x, total = floats(rng, 3, 2), floats(rng, 2)
    both: dict[str, tuple[type, Callable[..., Any]]] = {
        "states keep shape and dtype": (ValueError, lambda x: nd.foreach(lambda a, s: (a, nd.concat([s, s])), x, x[0])),
        "two things": (TypeError, lambda x: nd.foreach(lambda a, s: a, x, x[0])),
        "structure of states": (ValueError, lambda x: nd.foreach(lambda a, s: (a, [s, s]), x, [x[0]])),
        "first axis": (TypeError, lambda x: nd.foreach(lambda a, s: (a, s), nd.array(1.0), x)),
        "same first dimension": (ValueError, lambda x: nd.foreach(lambda a, s: (a[0], s), [x, x[1:]], x)),
        "array of one element": (TypeError, lambda x: nd.while_loop(lambda a: True, lambda a: (a, a), x, 3)),
        "must not be negative": (ValueError, lambda x: nd.while_loop(lambda a: a.sum() > 0, lambda a: (a, a), x, -1)),
        "pred must be an array of one": (TypeError, lambda x: nd.cond(x > 0, lambda: x, lambda: x)),
    }
    for text, (kind, f) in both.items():
        for run in (f, hybridize(f)):
            with pytest.raises(kind, match=text) as error:
                run(x)
            assert "test_control.py:" in str(error.value)
    traced: dict[str, tuple[type, Callable[..., Any]]] = {
        "same shapes": (ValueError, lambda x: nd.cond(x.sum() > 0, lambda: x, lambda: x[0])),
        "same structure": (ValueError, lambda x: nd.cond(x.sum() > 0, lambda: x, lambda: [x])),
        "equally many random": (
            ValueError, lambda x: nd.cond(x.sum() > 0, lambda: x, lambda: nd.random.uniform(shape=x.shape)),
        ),
        "cannot write to": (TraceError, lambda x: nd.foreach(lambda a, s: (a.__iadd__(1), s), x, x[0])),
        "needs the values": (TraceError, lambda x: nd.foreach(lambda a, s: (a if a.sum() > 0 else s, s), x, x[0])),
        "must not draw": (
            ValueError, lambda x: nd.while_loop(lambda a: nd.random.uniform() > 0.5, lambda a: (a, a), x, 3),
        ),
    }  # fmt: skip
    for text, (kind, f) in traced.items():
        with pytest.raises(kind, match=text) as error:
            hybridize(f)(x)
        assert "test_control.py:" in str(error.value)

    def outside(x: nd.NDArray) -> Any:
        y = x * 2

        def body(a: nd.NDArray, s: nd.NDArray) -> Any:
            y[:] = y + 1
            return a, s

        return nd.foreach(body, x, x[0])

    def leaking(x: nd.NDArray, later: Callable[[nd.NDArray], Any] = lambda h: h) -> Any:
        kept: list[nd.NDArray] = []

        def body(a: nd.NDArray, s: nd.NDArray) -> Any:
            kept.append(s)
            return a, s + a

        return nd.foreach(body, x, x[0])[0], later(kept[-1])

    def aliased(x: nd.NDArray) -> Any:
        def body(a: nd.NDArray, s: nd.NDArray) -> Any:
            total[:] = total + a
            return a, s

        return nd.foreach(body, x, total)

    with pytest.raises(TraceError, match="cannot write to"):
        hybridize(outside)(x)
    for later in (lambda h: h, lambda h: h * 2, lambda h: nd.cond(x.sum() > 0, lambda: h * 2, lambda: h)):
        with pytest.raises(TraceError, match="from the body of a loop or branch"):
            hybridize(lambda x, later=later: leaking(x, later))(x)
    with pytest.raises(TraceError, match="that is also its data"):
        hybridize(aliased)(x)


def test_shapes_are_inferred_through_loops(rng: np.random.Generator) -> None:
    x, h = floats(rng, 4, 5, 3), floats(rng, 5, 4)
    for hybrid in (False, True):
        net = Cell()
        net.initialize()
        if hybrid:
            net.hybridize()
            assert [y.shape for y in net(x, h)] == [(4, 5, 4), (5, 4)]
        else:
            net.infer_shape(x, h)
        assert net.dense.weight.shape == (4, 3)
    net = Cell()
    net.initialize()
    assert [y.shape for y in net(floats(rng, 0, 5, 3), h)] == [(0, 5, 4), (5, 4)]


def test_an_index_out_of_range_in_a_body_raises(rng: np.random.Generator) -> None:
    table, seen = floats(rng, 5, 2), nd.zeros(2)

    def f(i: nd.NDArray) -> Any:
        outs, _ = nd.foreach(lambda i, s: (nd.take(table, i), s), i, nd.array(0.0))
        seen[:] = seen + outs.sum((0, 1))
        return outs

    compiled = compile_function(f)
    good = nd.array([[0, 1], [4, 2]])
    expected = compiled(good).sum((0, 1)).asnumpy()
    with pytest.raises(IndexError, match="out of"):
        compiled(nd.array([[0, 1], [9, 2]]))
    assert np.allclose(seen.asnumpy(), expected)
    assert compiled(good).shape == (2, 2, 2)


def test_export_says_what_it_cannot(rng: np.random.Generator, tmp_path: Any) -> None:
    net = Cell()
    net.initialize()
    net.hybridize()
    net(floats(rng, 2, 5, 3), floats(rng, 5, 4))
    with pytest.raises(ValueError, match="foreach"):
        net.export(tmp_path / "cell")
