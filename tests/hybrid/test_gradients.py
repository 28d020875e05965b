"""The tape over compiled calls: whatever one can do with gradients eagerly, one can do hybridized."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd, nn
from gluonish.hybrid import compile_function, hybridize


def floats(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> nd.NDArray:
    return nd.NDArray(np.asarray(rng.standard_normal(shape)).astype(dtype))


def twice(scenario: Callable[[Callable[[Any], Any]], Any], tolerance: float = 1e-4) -> list[np.ndarray]:
    """The scenario with eager functions, then with compiled ones: the same arrays come of both."""
    eager, hybrid = (scenario(wrap) for wrap in (lambda f: f, hybridize))
    for number, (a, b) in enumerate(zip(eager, hybrid, strict=True)):
        a, b = a.asnumpy(), b.asnumpy()
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"array {number}"
        assert np.allclose(a, b, tolerance, tolerance), f"array {number}: eager {a}, hybrid {b}"
    return hybrid


def test_arguments_and_captured_in_every_request(rng: np.random.Generator) -> None:
    xs = [floats(rng, 4, 3) for _ in range(3)]
    values = floats(rng, 3, 5).asnumpy()
    for request in ("write", "add", "null"):
        for wanted in ("write", "null"):

            def scenario(wrap: Any, request: str = request, wanted: str = wanted) -> Any:
                w, b = nd.NDArray(values.copy()), nd.zeros((5,))
                w.attach_grad(request)
                b.attach_grad()
                f = wrap(lambda x: nd.tanh(x @ w + b).sum(1))
                found = []
                for x in xs:
                    x.attach_grad(wanted)
                    with autograd.record():
                        y = f(x)
                    y.backward()
                    found += [y, b.grad, *(g for g in (w.grad, x.grad) if g is not None)]
                return found

            twice(scenario)


def test_head_gradients(rng: np.random.Generator) -> None:
    x, head = floats(rng, 3, 4), floats(rng, 8, 3)

    def scenario(wrap: Any) -> Any:
        x.attach_grad()
        f = wrap(lambda x: (x * x, x.sum(0), nd.exp(x), x > 0, 3))
        with autograd.record():
            a, b, c, _, _ = f(x)
        found = []
        for heads, grads in (
            ([a, b, c], None),
            ([b], None),
            ([a, c], [nd.ones((3, 4)), None]),
            ([c], [head[::2].swapaxes(0, 1)]),  # not contiguous
            ([a, a], None),
        ):
            autograd.backward(heads, grads, retain_graph=True)
            found.append(x.grad)
        return found

    twice(scenario)


def test_results_that_nobody_needs_and_gradients_through_more_ops(rng: np.random.Generator) -> None:
    x = floats(rng, 3, 4)

    def scenario(wrap: Any) -> Any:
        x.attach_grad()
        f = wrap(lambda x, y: {"first": x * y, "second": [nd.exp(y), x + 1]})
        with autograd.record():
            y = nd.sin(x)
            out = f(x, y)
            loss = (out["first"] * 3).sum() + nd.log(out["second"][1] * out["second"][1] + 1).mean()
        loss.backward()
        return [x.grad]

    twice(scenario)


def test_two_forwards_before_a_backward(rng: np.random.Generator) -> None:
    """Siamese nets; what is kept of one call is not overwritten by the next, of the same or of other sizes."""
    first, second, third = floats(rng, 4, 6), floats(rng, 4, 6), floats(rng, 9, 6)
    values = floats(rng, 6, 5).asnumpy()

    def scenario(wrap: Any) -> Any:
        w = nd.NDArray(values.copy())
        w.attach_grad()
        f = wrap(lambda x: nd.softmax(nd.relu(x @ w)))
        with autograd.record():
            a, b, c = f(first), f(second), f(third)
            loss = ((a - b) ** 2).sum() + c[:, 0].sum()
        loss.backward()
        found = [w.grad]
        with autograd.record():
            calls = [f(x) for x in (first, second, third, first)]
        for call in calls[::-1]:
            call.backward(nd.ones(call.shape) * call)
            found.append(w.grad)
        return found

    twice(scenario)


def test_a_function_applied_to_its_own_result(rng: np.random.Generator) -> None:
    x = floats(rng, 3, 3)

    def scenario(wrap: Any) -> Any:
        w = nd.ones((3, 3)) * 0.3
        w.attach_grad()
        x.attach_grad()
        f = wrap(lambda x: nd.tanh(x @ w) + x)
        with autograd.record():
            y = f(f(f(x)))
        y.backward()
        return [y, w.grad, x.grad]

    twice(scenario)


def test_accumulated_gradients(rng: np.random.Generator) -> None:
    xs = [floats(rng, n, 4) for n in (3, 3, 7)]
    values = floats(rng, 4, 2).asnumpy()

    def scenario(wrap: Any) -> Any:
        w = nd.NDArray(values.copy())
        w.attach_grad("add")
        f = wrap(lambda x: (x @ w).mean())
        for x in xs:
            with autograd.record():
                loss = f(x)
            loss.backward()
        total = w.grad.copy()
        w.zero_grad()
        with autograd.record():
            loss = f(xs[0])
        loss.backward()
        return [total, w.grad]

    twice(scenario)


def test_backward_twice(rng: np.random.Generator) -> None:
    x = floats(rng, 3, 4)

    def scenario(wrap: Any) -> Any:
        x.attach_grad("add")
        f = wrap(lambda x: nd.softmax(x * 2).sum(0))
        with autograd.record():
            y = f(x)
        y.backward(floats(np.random.default_rng(1), 4), retain_graph=True)
        once = x.grad.copy()
        y.backward(floats(np.random.default_rng(1), 4))
        return [once * 2, x.grad]

    found = twice(scenario)
    assert np.allclose(found[0].asnumpy(), found[1].asnumpy(), rtol=1e-6)


def test_gradients_do_not_share_memory(rng: np.random.Generator) -> None:
    a, b = floats(rng, 3), floats(rng, 3)
    a.attach_grad()
    b.attach_grad()
    with autograd.record():
        y = hybridize(lambda a, b: a + b)(a, b)
    head = nd.ones((3,))
    y.backward(head)
    a.grad[:] = 5
    assert b.grad.tolist() == [1, 1, 1] and head.tolist() == [1, 1, 1]


def test_grad_returns_gradients(rng: np.random.Generator) -> None:
    x, w = floats(rng, 3, 4), floats(rng, 4, 2)

    def scenario(wrap: Any) -> Any:
        x.attach_grad()
        w.attach_grad()
        f = wrap(lambda x: nd.sigmoid(x @ w))
        with autograd.record():
            h = x * 2
            y = f(h)
        return autograd.grad(y, [x, h, w], retain_graph=True)

    twice(scenario)


def test_second_order(rng: np.random.Generator) -> None:
    x, w = floats(rng, 3, 4), floats(rng, 4, 2)

    def scenario(wrap: Any) -> Any:
        x.attach_grad()
        w.attach_grad()
        f = wrap(lambda x: nd.tanh(x @ w) * nd.exp(w.sum()))
        with autograd.record():
            y = f(x).sum()
            gx, gw = autograd.grad(y, [x, w], create_graph=True, retain_graph=True)
            penalty = (gx * gx).sum() + (gw * nd.sin(gw)).sum()
        penalty.backward()
        return [y, gx, gw, x.grad, w.grad]

    twice(scenario, 1e-3)


def test_second_order_with_dropout_and_running_statistics(rng: np.random.Generator) -> None:
    """The repeated forward draws the same numbers and moves no statistics."""
    x = floats(rng, 6, 4)

    def scenario(wrap: Any) -> Any:
        net = nn.HybridSequential(
            nn.Dense(5, in_units=4), nn.BatchNorm(in_channels=5), nn.Dropout(0.5), nn.Dense(1, in_units=5)
        )
        nd.random.seed(3)
        net.initialize("normal")
        net.hybridize(wrap is hybridize)
        x.attach_grad()
        for _ in range(2):
            with autograd.record():
                (g,) = autograd.grad(net(x).sum(), [x], create_graph=True, retain_graph=True)
                loss = ((g * g).sum(1) - 1).square().mean()
            loss.backward()
        return [loss, g, net[0].weight.grad, net[1].running_mean, net[1].running_var, nd.random.uniform(shape=3)]

    twice(scenario, 1e-3)


def test_second_order_of_what_depends_on_a_state(rng: np.random.Generator) -> None:
    """The repeated forward begins with the values that the state had, and leaves those that it has."""
    x, head = floats(rng, 5), floats(rng, 5)
    first = floats(rng, 3).asnumpy()

    def scenario(wrap: Any) -> Any:
        state = nd.NDArray(first.copy())
        x.attach_grad()

        def step(x: Any) -> Any:
            state[:] = state * 0.5 + x.detach().mean()
            return x * x * x * state.mean()

        f = wrap(step)
        for _ in range(2):
            with autograd.record():
                (g,) = autograd.grad(f(x), [x], head, create_graph=True, retain_graph=True)
                penalty = (g * g).sum()
            penalty.backward()
        return [g, x.grad, state]

    twice(scenario, 1e-4)


def test_second_order_of_a_loop_of_no_steps() -> None:
    x, count = nd.array([1.0, 2.0]), nd.array(0)
    x.attach_grad()
    f = hybridize(lambda x, n: nd.while_loop(lambda i, s: i < n, lambda i, s: (s, (i + 1, s * x)), (n * 0, x), 2)[0])
    with autograd.record():
        (g,) = autograd.grad(f(x, count), [x], create_graph=True)
    np.testing.assert_array_equal(g.asnumpy(), [0.0, 0.0])


def test_backward_inside_the_function(rng: np.random.Generator) -> None:
    """A whole step: its gradients are handed to the arrays after each run."""
    xs = [floats(rng, 4, 3), floats(rng, 4, 3), floats(rng, 6, 3)]

    def scenario(wrap: Any) -> Any:
        w, b = nd.ones((3, 2)), nd.zeros((2,))
        w.attach_grad()
        b.attach_grad("add")

        def step(x: Any) -> Any:
            with autograd.record():
                loss = nd.tanh(x @ w + b).square().mean()
            loss.backward()
            return loss

        f = wrap(step)
        found = []
        for x in xs:
            found += [f(x), w.grad.copy(), b.grad.copy()]
            w -= 0.1 * w.grad
        b.attach_grad("null")  # frozen since the trace
        found += [f(xs[0]), w.grad.copy()]
        return found

    twice(scenario)


def test_backward_inside_the_function_reaches_arguments(rng: np.random.Generator) -> None:
    w, values = floats(rng, 3), floats(rng, 4, 3).asnumpy()

    def scenario(wrap: Any) -> Any:
        def step(x: Any, y: Any) -> Any:
            with autograd.record():
                loss = (x * w * y).sum()
            loss.backward()
            return loss

        f = wrap(step)
        x, y = nd.NDArray(values), nd.NDArray(values.copy() + 1)
        found = []
        for requests in (("write", "null"), ("add", "write"), ("add", "write")):
            if x.grad_req != requests[0]:
                x.attach_grad(requests[0])
            y.attach_grad(requests[1])
            found += [f(x, y), x.grad.copy(), nd.zeros((1,)) if y.grad is None else y.grad.copy()]
        return found

    twice(scenario)


def test_a_gradient_read_in_the_function_is_the_present_one(rng: np.random.Generator) -> None:
    x = floats(rng, 4, 3)

    def scenario(wrap: Any) -> Any:
        w = nd.ones((3,))
        w.attach_grad()

        def update() -> None:
            w[:] = w - 0.1 * w.grad

        def step(x: Any) -> Any:
            with autograd.record():
                loss = (x * w).square().sum()
            loss.backward()
            w[:] = w - 0.1 * w.grad
            return loss

        f, g = wrap(update), wrap(step)
        found = []
        for _ in range(3):
            with autograd.record():
                loss = (x * w).square().mean()
            loss.backward()
            f()
            found += [w.copy(), g(x), w.copy()]
        return found

    twice(scenario)


def test_a_changed_input_is_noticed(rng: np.random.Generator) -> None:
    x, w = floats(rng, 3), floats(rng, 3)
    w.attach_grad()
    f = hybridize(lambda x: (x * w * w).sum())
    with autograd.record():
        y = f(x)
    x[:] = 1
    with pytest.raises(ValueError, match=r"changed in place.*test_gradients\.py"):
        y.backward()
    with autograd.record():
        y = f(x)
    w[0] = 5
    with pytest.raises(ValueError, match=r"changed in place"):
        y.backward()
    with autograd.record():
        y = f(x)
    y.backward()
    assert np.allclose(w.grad.asnumpy(), 2 * w.asnumpy())


def test_a_changed_result_does_not_change_gradients(rng: np.random.Generator) -> None:
    """In eager mode the tape would refuse; the compiled backward keeps what it needs to itself, or refuses too."""
    x = floats(rng, 4)
    x.attach_grad()
    with autograd.record():
        y = hybridize(lambda x: nd.exp(x))(x)
    y._data[:] = 0
    y.backward(nd.ones((4,)))
    assert np.allclose(x.grad.asnumpy(), np.exp(x.asnumpy()), rtol=1e-5)


def test_hybrid_blocks_in_plain_code_and_the_other_way_round(rng: np.random.Generator) -> None:
    x = floats(rng, 5, 3)

    def scenario(wrap: Any) -> Any:
        nd.random.seed(2)
        part, rest = nn.Dense(4, in_units=3, activation="tanh"), nn.Dense(2, in_units=4)
        part.initialize("normal")
        rest.initialize("normal")
        part.hybridize(wrap is hybridize)
        x.attach_grad()
        with autograd.record():
            y = rest(nd.relu(part(x)) + 1)
        y.backward()
        whole = wrap(lambda x: rest(part(x)))
        found = [x.grad.copy(), part.weight.grad.copy(), rest.weight.grad.copy()]
        with autograd.record():
            z = whole(x)
        z.backward()
        return [*found, x.grad, part.weight.grad, rest.weight.grad]

    twice(scenario)


def test_shared_parameters_and_parameters_returned(rng: np.random.Generator) -> None:
    x = floats(rng, 5, 4)

    def scenario(wrap: Any) -> Any:
        w = nd.ones((4, 4)) * 0.5
        w.attach_grad()
        f = wrap(lambda x: (nd.relu(x @ w) @ w.swapaxes(0, 1), w, w.sum()))
        with autograd.record():
            y, same, total = f(x)
            loss = y.sum() + (same * same).sum() + total
        loss.backward()
        return [w.grad]

    twice(scenario)


def test_stop_gradient_and_paths_without_gradient(rng: np.random.Generator) -> None:
    x = floats(rng, 5, 4)

    def scenario(wrap: Any) -> Any:
        w = floats(np.random.default_rng(0), 4)
        w.attach_grad()
        x.attach_grad()

        def f(x: Any) -> Any:
            with autograd.pause():
                scale = (x * w).max()
            return (x * w).detach() * x + scale, nd.sign(x), x.argmax(1)

        with autograd.record():
            y, s, i = wrap(f)(x)
        assert s._entry is None and i._entry is None
        y.backward()
        return [x.grad, w.grad, s, i]

    twice(scenario)


def test_double_precision_gradients(rng: np.random.Generator) -> None:
    x, w = floats(rng, 5, 4, dtype="float64"), floats(rng, 4, 3, dtype="float64")

    def scenario(wrap: Any) -> Any:
        x.attach_grad()
        w.attach_grad()
        with autograd.record():
            y = wrap(lambda x: nd.log_softmax(nd.gelu(x @ w)).sum())(x)
        y.backward()
        return [y, x.grad, w.grad]

    twice(scenario, 1e-12)


def test_half_precision_through_numpy(rng: np.random.Generator) -> None:
    """Kernels have no float16 yet: those ops run through NumPy inside the program, forward and backward."""
    x, w = floats(rng, 5, 4, dtype="float16"), floats(rng, 4, 3, dtype="float16")
    images = floats(rng, 2, 3, 6, 6, dtype="float16")

    def scenario(wrap: Any) -> Any:
        for a in (x, w, images):
            a.attach_grad()
        f = wrap(lambda x: (nd.softmax(nd.relu(x @ w) + 1).sum(0) * 2).astype("float32").sum() * nd.exp(x[0, 0]))
        g = wrap(lambda x: nd.max_pool(x * 2, 2).mean() + nd.concat([x, x])[1:].reshape((-1,)).max())
        with autograd.record():
            y, z = f(x), g(images)
        autograd.backward([y, z])
        return [y, z, x.grad, w.grad, images.grad]

    twice(scenario, 2e-2)


def test_deep_nets_compile_in_time(rng: np.random.Generator) -> None:
    """The time to trace and lower grows with the depth, not with its square."""
    weights = [floats(rng, 4, 4) for _ in range(300)]
    for w in weights:
        w.attach_grad()

    def deep(x: Any) -> Any:
        for w in weights:
            x = nd.tanh(x @ w) * 0.1 + x
        return x

    start = time.perf_counter()
    with autograd.record():
        y = hybridize(deep)(floats(rng, 2, 4))
    y.backward()
    assert time.perf_counter() - start < 10
    assert all(w.grad is not None and w.grad.asnumpy().any() for w in weights)


def test_empty_and_single_batches(rng: np.random.Generator) -> None:
    w = floats(rng, 4, 3)
    f = compile_function(lambda x: nd.softmax(x @ w).sum(0))
    for rows in (0, 1, 5):
        w.attach_grad()
        x = floats(rng, rows, 4)
        with autograd.record():
            y = f(x)
        y.backward(nd.array([1.0, 2.0, 3.0]))
        hybrid = w.grad.asnumpy()
        with autograd.record():
            y = nd.softmax(x @ w).sum(0)
        y.backward(nd.array([1.0, 2.0, 3.0]))
        assert np.allclose(w.grad.asnumpy(), hybrid, rtol=1e-4, atol=1e-6)


def test_memory_kept_for_the_backward_is_given_back(rng: np.random.Generator) -> None:
    w = floats(rng, 64, 64)
    w.attach_grad()
    f = hybridize(lambda x: nd.tanh(nd.tanh(x @ w) @ w))
    x = floats(rng, 64, 64)
    addresses = set()
    for _ in range(30):
        with autograd.record():
            y = f(x)
        addresses.add(y._entry[1].kept.base)
        y.backward()
    assert len(addresses) <= 3


def test_the_gradient_of_a_dense_layer_over_a_batch_is_one_product(rng: np.random.Generator) -> None:
    """(T, N, I) @ (I, O): not T products whose sum is taken afterwards."""
    x, w = nd.array(rng.standard_normal((4, 6, 5)).astype("f")), nd.array(rng.standard_normal((5, 3)).astype("f"))
    w.attach_grad()
    compiled = compile_function(lambda x: nd.matmul(x, w))
    with autograd.record():
        out = compiled(x)
    head = rng.standard_normal((4, 6, 3)).astype("f")
    out.backward(nd.array(head))
    np.testing.assert_allclose(w.grad.asnumpy(), np.einsum("tni,tno->io", x.asnumpy(), head), rtol=1e-4, atol=1e-5)
    with autograd.record():
        tape = nd.matmul(x, w)
    gradient = autograd.grad(tape, w, nd.array(head))
    np.testing.assert_allclose(gradient.asnumpy(), w.grad.asnumpy(), rtol=1e-5, atol=1e-6)
    names = [step.name for variant in compiled.variants for step in variant.backward.program().steps]
    assert names.count("matmul") == 1 and not any("fold" in name for name in names), names
