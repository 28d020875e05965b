"""Kernels for 64-bit Arm: objects of every family, their instructions, and (under qemu) their results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernels import arm_machine
from laws import every_op, samples, tracked

from gluonish import autograd, init, loss, nd, nn
from gluonish.hybrid import compile_function
from gluonish.hybrid.fuse import root_of
from gluonish.kernels import compile as compiler
from gluonish.kernels import target
from gluonish.kernels.errors import KernelError
from gluonish.kernels.kernel import Kernel
from gluonish.nd.op import OPS, Op

LIBRARY = {"memcpy", "memmove", "memset"}
NEEDS_QEMU = pytest.mark.skipif(bool(arm_machine.MISSING), reason=f"to run Arm code needs {arm_machine.MISSING}")


class Emitted(dict[Kernel, bytes]):
    """The objects of all kernels that a program was lowered to for Arm; it runs by code of this machine for the same
    kernels, so their tiles are tried too."""

    def address(self, kernel: Kernel, machine: target.Target) -> int:
        if machine.arm64 and kernel not in self:
            self[kernel] = compiler.object_code(kernel, machine, kernel.name)
        return self.load(kernel, target.named("generic"))

    load: Any = staticmethod(compiler._load)


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> Emitted:
    found = Emitted()
    monkeypatch.setattr(compiler, "_load", found.address)
    monkeypatch.setattr(compiler, "_addresses", {})
    return found


def check(emitted: Emitted) -> None:
    assert emitted
    for kernel, code in emitted.items():
        assert code[:4] == b"\x7fELF" and code[18:20] == b"\xb7\0", kernel.name  # EM_AARCH64
        assert arm_machine.undefined(code) <= LIBRARY, kernel.name


def gradients(net: Any, x: nd.NDArray, labels: nd.NDArray) -> list[np.ndarray]:
    nd.random.seed(4)
    with autograd.record():
        losses = loss.SoftmaxCrossEntropyLoss()(net(x), labels)
    losses.backward()
    return [losses.asnumpy(), *(p.grad.asnumpy() for p in net.collect_params().values() if p.grad_req != "null")]


def test_a_network_for_arm(emitted: Emitted, rng: np.random.Generator) -> None:
    """Convolutions, products, pooling, norms, softmax, dropout, forward and backward, with the tiles for Arm."""
    layers = [nn.Conv2D(9, 3, padding=1), nn.Activation("tanh"), nn.MaxPool2D(2), nn.Conv2D(12, 3, groups=3)]
    layers += [nn.Flatten(), nn.Dense(21), nn.LayerNorm(), nn.Dropout(0.3), nn.Dense(10)]
    net = nn.HybridSequential(*layers)
    net.initialize(init.Xavier())
    x, labels = nd.array(rng.standard_normal((4, 3, 9, 11)).astype("f4")), nd.array([1, 9, 3, 3])
    eager = gradients(net, x, labels)
    net.hybridize()
    with target.use(target.arm()):
        for a, b in zip(eager, gradients(net, x, labels), strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-4 * max(1e-3, abs(a).max()))
    check(emitted)
    text = "\n".join(
        arm_machine.assembly(kernel) for kernel in emitted if "gemm" in kernel.name or "conv" in kernel.name
    )
    assert "fmla\tv" in text


@pytest.mark.slow
@pytest.mark.parametrize("op", every_op(), ids=lambda op: op.name)
def test_every_op_for_arm(op: Op, emitted: Emitted, rng: np.random.Generator) -> None:
    for sample in samples(op, rng):
        compiled = compile_function(lambda *xs, attrs=sample.attrs: op(*xs, **attrs))
        with target.use(target.arm()), autograd.record():
            out = compiled(*tracked(sample.inputs))
            if out._entry is not None:
                out.backward()
    check(emitted)


FUNCTIONS = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "sin", "cos", "tan", "asin", "acos", "atan")
FUNCTIONS += ("sinh", "cosh", "asinh", "acosh", "atanh", "sqrt", "rsqrt", "floor", "round", "exp2", "log2", "cbrt")


def mapping(function: str, code: str) -> Kernel:
    source = (
        "def mapped(args, begin, end):\n    x, o = load_i64(args, 0), load_i64(args, 1)\n"
        f"    for i in range(begin, end):\n        store_{code}(o, i, f(load_{code}(x, i)))\n"
    )
    return Kernel("mapped", source, (("f", "intrinsics:math_intrinsic", (function, 1)),))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_are_neon_code(function: str) -> None:
    for code, kinds in (("f32", (".4s", ".2d")), ("f64", (".2d",))):  # some functions of float32 compute in float64
        kernel = mapping(function, code)
        with target.use(target.arm()):
            text = kernel.assembly
        calls = re.findall(r"\tbl\t(\S+)", text)
        assert any(kind in text for kind in kinds), function
        assert all(name.startswith("gluonish_rare_") for name in calls), function  # of huge angles
        assert arm_machine.undefined(compiler.object_code(kernel, target.arm(), "mapped")) <= LIBRARY


def test_code_for_arm_is_not_called_elsewhere() -> None:
    if target.host().arm64:
        pytest.skip("this is an Arm machine")
    with target.use(target.arm()), pytest.raises(KernelError, match="cannot be called on this machine"):
        mapping("exp", "f32").address


@NEEDS_QEMU
@pytest.mark.slow
@pytest.mark.parametrize("code", ["f32", "f64"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_on_arm(function: str, code: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Against NumPy here: the errors are those of x86."""
    dtype = np.dtype("f4" if code == "f32" else "f8")
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 1.0, -1.0, 88.9, -103.0, 1e3]
    x = np.concatenate([special, rng.uniform(-3, 3, 3001), rng.uniform(-90, 90, 500)]).astype(dtype)
    _, got = arm_machine.run(mapping(function, code), [x, np.zeros_like(x)], 0, x.size, tmp_path)
    with np.errstate(all="ignore"):
        wanted = OPS[function].forward(x.astype("f8")).astype(dtype)
    np.testing.assert_allclose(got, wanted, rtol=8 * np.finfo(dtype).eps, atol=1e-44)


def on_arm(compiled: Any, arrays: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    """The outputs of a compiled function's only program, every step of it run under qemu."""
    (variant,) = compiled.variants
    program = variant.program
    (main,) = program._free[0].bounds.values()
    memory = {id(node): x for node, x in zip(program.graph.inputs, arrays)}
    memory |= {id(node): node.array.asnumpy() for node in program.captured}
    for bound in [program.prepared.bound, main] if program.prepared.steps else [main]:
        for step, plan in zip(bound.steps, bound.plans):
            nodes = [root_of(node) for node in (*step.reads, *step.writes)]
            for node in nodes:
                memory.setdefault(id(node), np.zeros(bound.shape(node), node.dtype))
            arguments: list[Any] = [memory[id(node)] for node in nodes]
            arguments.append(np.zeros(plan.scratch, np.uint8) if plan.scratch else 0)
            arguments += [*map(int, plan.scalars), *(int(bound.number(s)) for s in step.extra)]
            after = arm_machine.run(step.kernel, arguments, 0, plan.tiles, folder)
            memory |= {id(node): x for node, x in zip(nodes, after)}
    return [memory[id(root_of(node))] for node in program.returned]


PROGRAMS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "an elementwise chain": (lambda x, y: nd.tanh(x * y + 1) - nd.sqrt(nd.abs(y)), [(37, 19), (19,)]),
    "sums over rows": (lambda x: (x * x).sum(1), [(23, 301)]),
    "sums over columns": (lambda x: x.mean(0), [(301, 23)]),
    "softmax": (lambda x: nd.softmax(x), [(17, 45)]),
    "largest": (lambda x: nd.max(x, 1), [(17, 45)]),
    "transposed": (lambda x: nd.transpose(x, (2, 0, 1)) + 0, [(9, 17, 11)]),
    "product": (lambda x, y: x @ y, [(37, 65), (65, 51)]),
    "product with its end": (lambda x, y, z: nd.relu(x @ y.T + z), [(13, 33), (29, 33), (29,)]),
    "products of a batch": (lambda x, y: x @ y, [(3, 14, 20), (3, 20, 18)]),
    "convolution": (lambda x, w: nd.convolution(x, w, stride=(2, 1), pad=(1, 1)), [(2, 5, 13, 9), (11, 5, 3, 3)]),
    "pooling": (lambda x: nd.max_pool(x, (2, 2), (2, 2)), [(2, 5, 12, 10)]),
}


@NEEDS_QEMU
@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_on_arm(name: str, emitted: Emitted, tmp_path: Path, rng: np.random.Generator) -> None:
    function, shapes = PROGRAMS[name]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    compiled = compile_function(function)
    with target.use(target.arm()):
        here = compiled(*[nd.NDArray(x) for x in arrays]).asnumpy()
        (there,) = on_arm(compiled, arrays, tmp_path)
    eager = function(*[nd.NDArray(x) for x in arrays]).asnumpy()
    np.testing.assert_allclose(there.reshape(here.shape), eager, rtol=1e-4, atol=1e-4)
