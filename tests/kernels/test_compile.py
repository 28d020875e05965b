"""Kernels compile to the code that was meant, and say clearly when they do not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by name from then on)
import numpy as np
import pytest

from gluonish.kernels import frontend, target, tiling, window
from gluonish.kernels.compile import object_code
from gluonish.kernels.errors import KernelError
from gluonish.kernels.kernel import Kernel
from gluonish.kernels.scalars import SCALARS, code_of

X86 = pytest.mark.skipif(not target.host().x86, reason="looks at x86 assembly")
EACH_LEVEL = pytest.mark.parametrize("level", target.available())
Call = Callable[..., None]
Rng = np.random.Generator


def kernel(body: str, externals: tuple = ()) -> Kernel:
    lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
    return Kernel("tested", f"def tested(args, begin, end):\n{lines}", externals)


MANY = kernel(
    "\n".join(f"p{i} = load_i64(args, {i})" for i in range(13))
    + """
for i in range(begin * 1000, end * 1000):
    v = load_f32(p0, i)
"""
    + "\n".join(f"    v = add(multiply(v, load_f32(p{i}, i)), load_f32(p{i + 1}, i))" for i in range(1, 9))
    + """
    store_f32(p10, i, v)
    store_f32(p11, i, multiply(v, float32(2.0)))
    store_f32(p12, i, load_f32(p0, i))
"""
)


@EACH_LEVEL
def test_ten_inputs_and_three_outputs(level: str, call: Call, rng: Rng) -> None:
    inputs = [rng.uniform(-1, 1, 3000).astype("f4") for _ in range(10)]
    outputs = [np.empty(3000, "f4") for _ in range(3)]
    with target.use(target.named(level)):
        call(MANY, inputs + outputs, 0, 3)
    expected = inputs[0].astype("f8")
    for i in range(1, 9):
        expected = expected * inputs[i] + inputs[i + 1]
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs[1], outputs[0] * np.float32(2))
    np.testing.assert_array_equal(outputs[2], inputs[0])


@X86
@EACH_LEVEL
def test_many_pointers_vectorise_without_checks(level: str) -> None:
    with target.use(target.named(level)):
        text, assembly = MANY.llvm, MANY.assembly
    assert "conflict" not in text  # so LLVM calls the values that compare pointers at run time
    assert "gather" not in assembly and "\tcall" not in assembly
    lanes = target.named(level).vector_bytes // 4
    assert f"load <{lanes} x float>" in text and f"store <{lanes} x float>" in text


def test_plain_accesses_do_not_promise() -> None:
    """The same loop through read and write has to be checked, or stay a scalar loop: the marks make the difference."""
    plain = Kernel("tested", MANY.source.replace("load_f32", "read_f32").replace("store_f32", "write_f32"))
    text = plain.llvm
    assert "conflict" in text or "x float>" not in text


def test_an_output_may_be_an_input(call: Call, rng: Rng) -> None:
    inputs = [rng.uniform(-1, 1, 1000).astype("f4") for _ in range(10)]
    apart, together = [np.empty(1000, "f4") for _ in range(3)], [np.empty(1000, "f4") for _ in range(3)]
    call(MANY, inputs + apart)
    shared = [a.copy() for a in inputs]
    call(MANY, [*shared, together[0], shared[3], together[2]])
    np.testing.assert_array_equal(together[0], apart[0])
    np.testing.assert_array_equal(shared[3], apart[1])


def test_running_sum_through_memory(call: Call) -> None:
    total = kernel("""
x = load_i64(args, 0)
for i in range(1, load_i64(args, 1)):
    write_f32(x, i, read_f32(x, i) + read_f32(x, i - 1))
""")
    x = np.ones(1000, "f4")
    call(total, [x, 1000])
    np.testing.assert_array_equal(x, np.arange(1, 1001))


def test_overlapping_plain_copy_keeps_its_order(call: Call) -> None:
    shift = kernel("""
x = load_i64(args, 0)
y = load_i64(args, 1)
for i in range(1000):
    write_f32(y, i, read_f32(x, i) + float32(1.0))
""")
    x = np.zeros(1001, "f4")
    call(shift, [x, x[1:]])
    np.testing.assert_array_equal(x, np.arange(1001))


def test_nested_loops_that_reuse_memory_stay_in_order(call: Call, rng: Rng) -> None:
    """Only innermost loops carry the promise: here each round of the outer one writes what the next one reads."""
    rounds = kernel("""
x = load_i64(args, 0)
s = load_i64(args, 1)
for r in range(50):
    for i in range(4):
        store_f32(s, i, load_f32(x, i) + float32(1.0))
    for i in range(4):
        store_f32(x, i, load_f32(s, 3 - i))
""")
    x, scratch = rng.integers(0, 9, 4).astype("f4"), np.zeros(4, "f4")
    expected = x + 50
    call(rounds, [x, scratch])
    np.testing.assert_array_equal(x, expected)


@EACH_LEVEL
def test_reductions_vectorise_and_are_right(level: str, call: Call, rng: Rng) -> None:
    reduce = kernel("""
x = load_i64(args, 0)
o = load_i64(args, 1)
total = float32(0.0)
for i in range(1003):
    total = total + load_f32(x, i)
largest = load_f32(x, 0)
for i in range(1003):
    largest = maximum(largest, load_f32(x, i))
store_f32(o, 0, total)
store_f32(o, 1, largest)
""")
    x, o = rng.uniform(-1, 1, 1003).astype("f4"), np.zeros(2, "f4")
    with target.use(target.named(level)):
        call(reduce, [x, o])
        text = reduce.llvm
        np.testing.assert_allclose(o, [x.sum(dtype="f8"), x.max()], rtol=1e-4, atol=1e-4)
        x[777] = np.nan
        call(reduce, [x, o])
    assert np.isnan(o).all()
    lanes = target.named(level).vector_bytes // 4
    assert re.search(rf"fadd .*<{lanes} x float>", text)
    assert f"llvm.maximum.v{lanes}f32" in text


def test_float32_code_holds_no_float64() -> None:
    assert "double" not in MANY.llvm and "fpext" not in MANY.llvm


@pytest.mark.parametrize("code", SCALARS)
def test_every_type_is_loaded_and_stored(code: str, call: Call, rng: Rng) -> None:
    scalar = SCALARS[code]
    x = (rng.integers(0, 2, 100) if code == "b1" else rng.integers(0, 100, 100)).astype(scalar.name)
    for load, store in (("load", "store"), ("read", "write")):
        out = np.zeros_like(x)
        copy = kernel(f"""
x = load_i64(args, 0)
o = load_i64(args, 1)
for i in range(begin, end):
    {store}_{code}(o, i, {load}_{code}(x, end - 1 - i))
""")
        call(copy, [x, out], 0, 100)
        np.testing.assert_array_equal(out, x[::-1])
    assert code_of(x.dtype) == code


def _numbers(code: str) -> np.ndarray:
    scalar = SCALARS[code]
    if scalar.kind == "f":
        with np.errstate(over="ignore"):
            return np.array([0, -0.0, 0.5, -0.5, 1, -1, 1.5, 2.5, -2.5, 100.7, -100.7, 3e4, 1e9, -1e9, 4e9]).astype(
                scalar.name
            )
    if code == "b1":
        return np.array([True, False])
    info = np.iinfo(scalar.name)
    return np.array([0, 1, 2, 100, info.min, info.max, info.max - 1, info.min + 1], scalar.name)


@pytest.mark.parametrize("source", SCALARS)
def test_casts_are_numpys(source: str, call: Call) -> None:
    x = _numbers(source)
    lines = ["x = load_i64(args, 0)"]
    lines += [f"o{c} = load_i64(args, {i})" for i, c in enumerate(SCALARS, 1)]
    lines += ["for i in range(begin, end):", f"    v = load_{source}(x, i)"]
    lines += [f"    store_{c}(o{c}, i, cast_{c}(v))" for c in SCALARS]
    outs = [np.empty(x.shape, s.name) for s in SCALARS.values()]
    call(kernel("\n".join(lines)), [x, *outs], 0, x.size)
    with np.errstate(all="ignore"):
        for out in outs:
            # NumPy leaves it to the C compiler what a float beyond the range of an integer becomes: not compared
            fits = np.ones(x.shape, bool)
            if SCALARS[source].kind == "f" and out.dtype.kind in "iu":
                info = np.iinfo(out.dtype)
                whole = np.trunc(x.astype(np.float64))
                fits = (whole >= info.min) & (whole <= info.max)
            np.testing.assert_array_equal(out[fits], x.astype(out.dtype)[fits], err_msg=f"{source} to {out.dtype}")


def test_floats_without_a_place_become_the_minimum(call: Call) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9], "f4")
    o32, o64 = np.empty(5, "i4"), np.empty(5, "i8")
    cast = kernel("""
x = load_i64(args, 0)
for i in range(begin, end):
    store_i32(load_i64(args, 1), i, cast_i32(load_f32(x, i)))
    store_i64(load_i64(args, 2), i, cast_i64(load_f32(x, i)))
""")
    call(cast, [x, o32, o64], 0, 5)
    np.testing.assert_array_equal(o32, np.full(5, -(2**31)))
    np.testing.assert_array_equal(o64, [-(2**63), -(2**63), -(2**63), 3 * 10**9, -3 * 10**9])


def test_min_and_max_of_indices(call: Call) -> None:
    o = np.zeros(4, "i8")
    pick = kernel("""
o = load_i64(args, 0)
store_i64(o, 0, min(begin, end))
store_i64(o, 1, max(begin, end))
store_i64(o, 2, end // -4)
store_i64(o, 3, end % 4)
""")
    call(pick, [o], -3, 7)
    np.testing.assert_array_equal(o, [-3, 7, -2, 3])


def test_atomics(call: Call) -> None:
    counts = kernel("""
w = load_i64(args, 0)
o = load_i64(args, 1)
store_i64(o, 0, atomic_add(w, 5))
store_i64(o, 1, atomic_exchange(w, 9))
store_i64(o, 2, atomic_compare_exchange(w, 8, 1))
store_i64(o, 3, atomic_compare_exchange(w, 9, 2))
store_i64(o, 4, atomic_load(w))
atomic_store(w, 77)
spin_pause()
""")
    word, o = np.array([10], "i8"), np.zeros(5, "i8")
    call(counts, [word, o])
    np.testing.assert_array_equal(o, [10, 15, 9, 9, 2])
    assert word[0] == 77


def test_kernels_call_each_other_by_address(call: Call) -> None:
    fill = kernel("""
o = load_i64(args, 0)
for i in range(begin, end):
    store_i64(o, i, i * i)
""")
    outer = Kernel("outer", "def outer(args, begin, end):\n    call_tiles(begin, args, 2, end)\n")
    o = np.zeros(6, "i8")
    call(outer, [o], fill.address, 5)
    np.testing.assert_array_equal(o, [0, 0, 4, 9, 16, 0])


def test_equal_kernels_share_their_code() -> None:
    again = Kernel(MANY.name, MANY.source, plan=lambda inputs, outputs: None)  # type: ignore[arg-type, return-value]
    assert again == MANY and again.address == MANY.address
    with target.use(target.named("generic")):
        restricted = MANY.address
    assert (restricted == MANY.address) == (target.current() == target.named("generic"))


def test_object_exports_one_plain_symbol() -> None:
    code = object_code(MANY, target.current(), "exported_name")
    assert b"exported_name\0" in code
    assert b"numba" not in code and b"_ZN" not in code


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("store_f32(load_i64(args, 0), 0, nonsense(1))", "nonsense is neither an intrinsic"),
        ("store_f32(load_i64(args, 0), 0, 0.5)", "store_f32 got a value of type float64; cast it with cast_f32"),
        ("store_f32(load_i64(args, 0), 0, maximum(float32(1.0), cast_f64(1)))", "cast one first"),
        ("x = [1, 2", "line"),
        ("v = subtract(cast_b1(begin), cast_b1(end))", "line 2: op subtract on (b1, b1): subtraction of bool"),
        ("v = begin + [1]", "line 2: there is no add(int64, list(int64)"),
        (
            "store_f32(args, 0, float32(begin) % float32(end))",
            "there is no // and no % of floats; use the ops floor_divide and remainder",
        ),
        ("v = begin ** end", "not part of the kernel language"),
    ],
)
def test_mistakes_name_the_kernel_and_the_rule(body: str, says: str) -> None:
    with pytest.raises(KernelError, match="(?s)kernel tested does not compile:.*" + re.escape(says)) as error:
        _ = kernel(body).address
    assert body.splitlines()[0] in str(error.value)  # the source is shown
    assert "Traceback" not in str(error.value)


def test_wrong_signature_is_refused() -> None:
    with pytest.raises(KernelError, match=r"no function tested\(args, begin, end\)"):
        _ = Kernel("tested", "def other(args, begin, end):\n    pass\n").address


def test_importing_the_modules_loads_no_compiler() -> None:
    program = (
        "import sys\n"
        "from gluonish.kernels import cache, compile, kernel, pool, scalars, target\n"
        "assert not {'numba', 'llvmlite'} & set(sys.modules), 'a compiler was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_kernels_that_differ_in_parts_pass_numba_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba sees the walk of a window once, whatever the epilogue; each text holds the parts of its own kernel."""
    lowered, passed = frontend._lowered, []
    monkeypatch.setattr(frontend, "_walks", {})
    monkeypatch.setattr(frontend, "_lowered", lambda *a: passed.append(a[0]) or lowered(*a))
    tile = tiling.tile_of("float32")
    residual = (("full",), (("add", (0, 1)), ("relu", (2,))))
    epilogues: list[Any] = [(), (("column",), (("multiply", (0, 1)),)), residual, residual]
    kernels = [Kernel("convolution", *window.source_of("float32", tile, epilogue)) for epilogue in epilogues]
    texts = [frontend.lower(kernel, kernel.name) for kernel in kernels]
    assert len(passed) == 1 and texts[2] == texts[3] and len(set(texts)) == 3
    assert [" fmul " in text for text in texts] == [False, True, False, False]
    with target.use(target.named("generic")):
        frontend.lower(kernels[0], "convolution")
    assert len(passed) == 2
