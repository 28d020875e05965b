"""The tape: modes, what backward writes where, head gradients, higher orders, errors, threads, memory."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from gluonish import autograd, nd


def variable(*values: float, grad_req: str = "write", dtype: str = "float32") -> nd.NDArray:
    x = nd.array(list(values), dtype=dtype)
    x.attach_grad(grad_req)
    return x


# --- modes -----------------------------------------------------------------------------------------------------------
def test_modes_nest_and_return() -> None:
    def now() -> tuple[bool, bool]:
        return autograd.is_recording(), autograd.is_training()

    assert now() == (False, False)
    with autograd.record():
        assert now() == (True, True)
        with autograd.pause():
            assert now() == (False, False)
            with autograd.train_mode():
                assert now() == (False, True)
        with autograd.predict_mode():
            assert now() == (True, False)
        with autograd.pause(train_mode=True):
            assert now() == (False, True)
        assert now() == (True, True)
    with autograd.record(train_mode=False):
        assert now() == (True, False)
    with pytest.raises(KeyError), autograd.record():
        raise KeyError
    assert now() == (False, False)


def test_modes_belong_to_their_thread() -> None:
    seen: list[bool] = []
    with autograd.record():
        t = threading.Thread(target=lambda: seen.append(autograd.is_recording()))
        t.start()
        t.join()
    assert seen == [False]


def test_threads_have_their_own_backward() -> None:
    shared = nd.array([2.0, 3.0])
    results: dict[int, Any] = {}

    def work(k: int) -> None:
        x = variable(1.0, 1.0)
        for _ in range(30):
            with autograd.record():
                y = x
                for _ in range(k):
                    y = y * shared
            y.backward()
        results[k] = x.grad.tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: [2.0**k, 3.0**k] for k in range(1, 5)}


def test_what_is_paused_is_constant() -> None:
    x = variable(3.0)
    with autograd.record():
        with autograd.pause():
            y = x * x
        out = x * y
        other = x * (x * x).detach()
    out.backward()
    assert x.grad.tolist() == [9.0]
    other.backward()
    assert x.grad.tolist() == [9.0]


# --- storing ---------------------------------------------------------------------------------------------------------
def test_write_overwrites_add_accumulates_null_forgets() -> None:
    x, total, none = variable(1.0), variable(1.0, grad_req="add"), variable(1.0, grad_req="null")
    assert x.grad.tolist() == [0.0] and none.grad is None and (total.grad_req, none.grad_req) == ("add", "null")
    for _ in range(3):
        with autograd.record():
            y = x * 2 + total * 3 + none * 4
        y.backward()
    assert x.grad.tolist() == [2.0] and total.grad.tolist() == [9.0] and none.grad is None
    total.zero_grad()
    assert total.grad.tolist() == [0.0]
    total.grad[:] = 5
    with autograd.record():
        y = total * 1
    y.backward()
    assert total.grad.tolist() == [6.0]


def test_a_gradient_can_be_set() -> None:
    x = variable(1.0, 2.0)
    x.grad = nd.array([3.0, 4.0])
    assert x.grad.tolist() == [3.0, 4.0]
    for value in (nd.ones(3), nd.ones(2, dtype="float64"), 1.0):
        with pytest.raises(ValueError, match=r"the gradient of an array \(2,\) float32.*test_autograd.py"):
            x.grad = value  # type: ignore[assignment]
    with pytest.raises(ValueError, match="attach_grad"):
        nd.ones(2).grad = nd.ones(2)


def test_an_array_used_twice_gets_both_gradients_once() -> None:
    x = variable(3.0)
    with autograd.record():
        y = x * x + x * x * x
    y.backward()
    assert x.grad.tolist() == [2 * 3 + 3 * 9]


def test_a_gradient_is_an_array_of_its_own() -> None:
    """Scaling one gradient in place (clipping, decay) must change no other, nor the head gradient."""
    x, y, z = variable(1.0, 2.0), variable(3.0, 4.0), variable(5.0, 6.0)
    head = nd.array([10.0, 20.0])
    with autograd.record():
        out = x + y + z.reshape(1, 2)[0]
    out.backward(head)
    x.grad[:] = 0
    y.grad *= 2
    assert (x.grad.tolist(), y.grad.tolist(), z.grad.tolist()) == ([0, 0], [20, 40], [10, 20])
    assert head.tolist() == [10.0, 20.0]
    with autograd.record():
        out = x.sum() + nd.concat([y, z]).sum()
    out.backward()
    for array in (x, y, z):
        array.grad[0] = 7  # not a read-only broadcast view either
        assert array.grad.tolist() == [7.0, 1.0]


def test_gradients_have_the_arrays_shape_and_dtype() -> None:
    x, y = variable(1.0, 2.0, dtype="float16"), variable(1.0, dtype="float64")
    with autograd.record():
        out = (x.astype("float32") * 3 + y).astype("float64") * 2
    assert out.dtype == np.float64
    out.backward()
    assert x.grad.dtype == np.float16 and x.grad.tolist() == [6.0, 6.0]
    assert y.grad.dtype == np.float64 and y.grad.tolist() == [4.0]


def test_attaching_cuts_off_and_fresh_says_who_was_reached() -> None:
    x, unused = variable(2.0), variable(1.0)
    with autograd.record():
        y = x * 3
        y.attach_grad()
        z = y * 5
    z.backward()
    assert y.grad.tolist() == [5.0] and x.grad.tolist() == [0.0]
    assert y._grad.fresh and not x._grad.fresh and not unused._grad.fresh


@pytest.mark.parametrize("value", ["sum", None, True])
def test_unknown_requests_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"grad_req must be one of .*test_autograd.py"):
        nd.ones(1).attach_grad(value)


def test_only_floats_have_gradients() -> None:
    with pytest.raises(TypeError, match=r"only floating-point arrays have gradients, .* is int64.*test_autograd.py"):
        nd.array([1]).attach_grad()
    nd.array([1]).attach_grad("null")


# --- backward --------------------------------------------------------------------------------------------------------
def test_heads_are_seeded_with_ones_or_as_told() -> None:
    x = variable(1.0, 2.0)
    with autograd.record():
        y, z = x * 2, x * 3
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0]
    autograd.backward([y, z], [nd.array([1.0, 0.0]), None])
    assert x.grad.tolist() == [5.0, 3.0]
    autograd.backward([y, z])
    assert x.grad.tolist() == [5.0, 5.0]
    y.backward(nd.array([0.5, 0.25], dtype="float64"))
    assert x.grad.tolist() == [1.0, 0.5] and x.grad.dtype == np.float32


def test_a_leaf_can_be_a_head() -> None:
    x = variable(4.0)
    x.backward()
    assert x.grad.tolist() == [1.0]


def test_backward_again_and_inside_record() -> None:
    x = variable(3.0)
    with autograd.record():
        y = x * x
        y.backward(retain_graph=True)
        assert autograd.is_recording()
    y.backward()
    assert x.grad.tolist() == [6.0] and x.grad._entry is None


def test_integers_and_comparisons_stop_gradients() -> None:
    x = variable(1.5, -2.5)
    with autograd.record():
        out = x * (x > 0) + x.astype("int32").astype("float32") * 3 + nd.floor(x)
    out.backward()
    assert x.grad.tolist() == [1.0, 0.0]
    with autograd.record():
        whole = x.astype("int32") * 2
    with pytest.raises(TypeError, match="the head is int32"):
        whole.backward()


def test_errors_of_backward() -> None:
    x = variable(1.0, 2.0)
    with pytest.raises(ValueError, match=r"was not computed under autograd.record\(\).*test_autograd.py"):
        (x * 2).backward()
    with autograd.record():
        constant = nd.ones(2) * 2
        y = x * 2
    with pytest.raises(ValueError, match="was not computed under"):
        constant.backward()
    with pytest.raises(ValueError, match=r"head gradient has shape \(3,\), the head \(2,\).*test_autograd.py"):
        y.backward(nd.ones(3))
    with pytest.raises(ValueError, match="2 heads but 1 head gradients"):
        autograd.backward([y, y], [None])
    assert x.grad.tolist() == [0.0, 0.0]
    y.backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_deep_tapes_need_no_recursion() -> None:
    x = variable(1.0)
    with autograd.record():
        y = x
        for _ in range(20_000):
            y = y + x
    y.backward()
    assert x.grad.tolist() == [20_001.0]
    del y  # freeing the tape must not recurse either


def test_a_tape_nobody_needs_is_freed_at_once() -> None:
    gc.disable()
    try:
        x = variable(1.0)
        with autograd.record():
            y = (x * 2).exp()
        watched = weakref.ref(y)
        y.backward()
        del y
        assert watched() is None
    finally:
        gc.enable()


# --- grad and higher orders ------------------------------------------------------------------------------------------
def test_grad_returns_and_stores_nothing() -> None:
    x, y = variable(2.0), variable(3.0)
    with autograd.record():
        out = x * x * y
    gx, gy = autograd.grad(out, [x, y])
    assert (gx.tolist(), gy.tolist()) == ([12.0], [4.0]) and not x._grad.fresh
    assert autograd.grad(out, x, nd.array([10.0])).tolist() == [120.0]
    untouched = variable(1.0)
    assert autograd.grad(out, untouched).tolist() == [0.0]


def test_grad_with_respect_to_what_was_computed() -> None:
    x = variable(2.0)
    with autograd.record():
        h = x * 3
        out = h * h + x
    gh, gx = autograd.grad(out, [h, x])
    assert gh.tolist() == [12.0] and gx.tolist() == [37.0]


def test_grad_of_a_variable_that_no_gradient_can_reach_is_an_error() -> None:
    x, plain = variable(2.0), nd.array([3.0])
    with autograd.record():
        out = x * plain
    with pytest.raises(ValueError, match=r"the variable of shape \(1,\) has no attach_grad\(\).*test_autograd.py"):
        autograd.grad(out, [x, plain])


def test_gradients_of_gradients() -> None:
    x = variable(2.0, dtype="float64")
    with autograd.record():
        y = x**4
        derivatives = []
        for _ in range(4):
            y = autograd.grad(y, x, create_graph=True)
            derivatives.append(y.item())
    assert np.allclose(derivatives, [32.0, 48.0, 48.0, 24.0])


def test_gradient_penalty() -> None:
    """The usual use of a second order: the squared length of a gradient as a loss, mixed with the first order."""
    rng = np.random.default_rng(0)
    w, x = nd.array(rng.standard_normal((3, 2))), nd.array(rng.standard_normal((4, 3)))
    w.attach_grad()
    x.attach_grad()

    def loss(w: nd.NDArray) -> nd.NDArray:
        with autograd.record():
            out = nd.tanh(x @ w)
            slope = autograd.grad(out.sum(), x, create_graph=True)
            return (slope * slope).sum() + out.mean()

    loss(w).backward()
    step = 1e-6 * rng.standard_normal(w.shape)
    ends = [loss(nd.array(w.asnumpy() + s * step)).item() for s in (1, -1)]
    assert np.isclose(np.sum(w.grad.asnumpy() * step), (ends[0] - ends[1]) / 2, rtol=1e-5)


def test_without_create_graph_gradients_are_constants() -> None:
    x = variable(2.0)
    with autograd.record():
        y = x * x
        g = autograd.grad(y, x)
        assert autograd.is_recording()
        out = g * x
    out.backward()
    assert x.grad.tolist() == [4.0]
