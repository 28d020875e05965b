"""Looking into hybridized code: `gl.print`, traced arrays as text, `inspect`, `explain` with times, `replace`."""

from __future__ import annotations

import numpy as np
import pytest

import gluonish as gl
from gluonish import autograd, nd, nn
from gluonish.kernels.errors import KernelError


def array(rng: np.random.Generator, *shape: int) -> nd.NDArray:
    return nd.NDArray(rng.standard_normal(shape).astype(np.float32))


class Net(nn.HybridBlock):
    def __init__(self) -> None:
        self.features = nn.HybridSequential(nn.Dense(6), nn.BatchNorm(), nn.Activation("relu"), nn.Dropout(0.5))
        self.twice = nn.Dense(6)
        self.unused = nn.Dense(6, in_units=6)

    def forward(self, x: nd.NDArray) -> nd.NDArray:
        x = self.features(x)
        return self.twice(self.twice(x)).sum(1)


# --- printing ---------------------------------------------------------------------------------------------------------
def test_prints_are_those_of_eager_mode(rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: nd.NDArray, scale: float) -> nd.NDArray:
        gl.print("in", x.shape, scale, sep="|")
        y = x * scale
        gl.print({"y": y, "parts": [y.sum(), 3, "text"]}, end=".\n")
        gl.print(y > 0)  # used nowhere else
        gl.print()
        return y + 1

    texts = []
    for run in (f, gl.hybridize(f), gl.hybridize(f, verify=True)):
        for x in (nd.array([1.0, -2.0]), nd.array([0.0, 0.0]), nd.array([5.0, 1.0])):
            x.attach_grad()
            run(x, 2.0)
            with autograd.record():
                run(x, 2.0).sum().backward()
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2] and texts[0].count("\n") == 24
    assert "in|(2,)|2.0" in texts[0] and "'y': array([ 2., -4.]" in texts[0]


def test_a_traced_array_says_what_it_is() -> None:
    seen: list[str] = []

    @gl.hybridize
    def f(x: nd.NDArray) -> nd.NDArray:
        y = nd.exp(x)
        seen.append(repr(y))
        return y

    f(nd.ones((2, 3)))
    assert seen[0].startswith("<traced (2, 3) float32, exp at test_looking.py:") and "gl.print" in seen[0]


# --- inspect ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("train", [False, True])
def test_inspect_gives_what_blocks_give_and_changes_nothing(train: bool, rng: np.random.Generator) -> None:
    net, x = Net(), array(rng, 4, 5)
    net.initialize()
    paths = ["", "features", "features.0", "features.2", "features.3", "twice"]
    with autograd.train_mode() if train else autograd.predict_mode():
        before = net(x)
        state = {name: p.asnumpy() for name, p in net.collect_params().items()}
        found = []
        for active in (False, True):
            net.hybridize(active)
            gl.random.seed(1)
            for _ in range(2):
                found.append(net.inspect(x, paths))
            draw = nd.random.uniform(shape=2).tolist()
        gl.random.seed(1)
        whole = net(x)
    assert all(np.array_equal(p.asnumpy(), state[name]) for name, p in net.collect_params().items()) or train
    gl.random.seed(1)
    assert nd.random.uniform(shape=2).tolist() == draw
    for values in found:
        assert np.allclose(values[0].asnumpy(), whole.asnumpy(), atol=1e-5)
        assert [v.shape for v in values[1:5]] == [(4, 6)] * 4 and [v.shape for v in values[5]] == [(4, 6)] * 2
        for a, b in zip(values[1:5], found[0][1:5], strict=True):
            assert np.allclose(a.asnumpy(), b.asnumpy(), atol=1e-5)
    assert before.shape == (4,)


def test_inspect_in_a_plain_block_and_with_wrong_paths(rng: np.random.Generator) -> None:
    class Plain(gl.Block):
        def __init__(self) -> None:
            self.net = Net()

        def forward(self, x: nd.NDArray) -> nd.NDArray:
            return self.net(x) * 2

    block = Plain()
    block.initialize()
    block.hybridize()
    assert block.inspect(array(rng, 2, 5), "net.features.1").shape == (2, 6)
    with pytest.raises(ValueError, match=r"no Block 'net.feature'.*'net.features'.*test_looking"):
        block.inspect(array(rng, 2, 5), "net.feature")
    for net in (block, block.net):
        with pytest.raises(ValueError, match="unused' did not run"):
            net.inspect(array(rng, 2, 5), "net.unused" if net is block else "unused")


# --- kernels ----------------------------------------------------------------------------------------------------------
def softplus_rows(x: nd.NDArray) -> nd.NDArray:
    return nd.tanh(x - x.max(1, keepdims=True)) * 3


def test_explain_measures_kernels_and_leaves_everything_as_it_was(rng: np.random.Generator) -> None:
    net, x = Net(), array(rng, 4, 5)
    net.initialize()
    net.hybridize()
    with autograd.record():
        net(x).sum().backward()
        state = [p.asnumpy() for p in net.collect_params().values()]
        position = nd.random.default.position
        text = net.explain(x)
    assert "forward: " in text and "backward: " in text and " us " in text and "test_looking.py" in text
    assert all(np.array_equal(p.asnumpy(), s) for p, s in zip(net.collect_params().values(), state, strict=True))
    assert nd.random.default.position == position
    assert " us " not in net.explain() and net.explain(time=True).count(" us one by one") == 2


def test_a_kernel_is_replaced_by_one_that_computes_the_same(rng: np.random.Generator) -> None:
    f, x = gl.hybridize(softplus_rows), array(rng, 6, 9)
    before = f(x).asnumpy()
    kernel = f.kernels(x)[-1]
    assert "# tanh at test_looking.py:" in kernel.source and "tanh(" in kernel.source
    for wrong, match in (
        (kernel.source.replace("tanh(", "sin("), r"computes something else: multiply at \(\d, \d\) is"),
        (kernel.source.replace("tanh(", "no_such_op("), "no_such_op"),
        (kernel.source.replace("def ", "def x"), "defines no function"),
        (
            "\n".join(row for row in kernel.source.splitlines() if "store_f32(" not in row) + "\n",
            "computes something else",
        ),
    ):
        with pytest.raises((ValueError, KernelError), match=match):
            kernel.replace(wrong)
        assert np.array_equal(f(x).asnumpy(), before)
    kernel.replace(kernel.source.replace("tanh(v1)", "tanh(v1)  # by hand"))
    assert "by hand" in f.kernels(x)[-1].source and f.kernels(x)[-1].source.count("# tanh at") == 1
    assert np.array_equal(f(x).asnumpy(), before)
    assert np.allclose(f(array(rng, 3, 4)).asnumpy() / 3, 0, atol=1)


@pytest.mark.parametrize("what", ["graph", "passes", "kernels", "memory"])
def test_a_look_without_arguments_says_what_it_wants(what: str) -> None:
    net = nn.HybridSequential(nn.Dense(2, in_units=3))
    net.initialize()
    with pytest.raises(TypeError, match=rf"{what} looks at a call of HybridSequential.*net.{what}\(x\).*test_looking"):
        getattr(net, what)()
