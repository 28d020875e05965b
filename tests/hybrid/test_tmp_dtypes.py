import numpy as np, pytest
from laws import *
from compiled_laws import agree, function_of, compile_function
@pytest.mark.parametrize("dtype", ["float64","float16","int64","int32","int8","uint8","bool", "uint32"])
@pytest.mark.parametrize("op", every_op(), ids=lambda op: op.name)
def test_dtypes(op, dtype, rng):
    for s in op.sample(rng):
        inputs = [x.astype(dtype) if is_float(x) else x for x in s.inputs]
        try: eager = run(op, inputs, s.attrs)
        except Exception: continue
        agree(op, eager, compile_function(function_of(op, s.attrs))(*[wrapped(x) for x in inputs]).asnumpy(), dtype, 6e-3 if dtype=="float16" else 2e-5)
@pytest.mark.parametrize("op", every_op(), ids=lambda op: op.name)
def test_grads64(op, rng):
    from compiled_laws import results
    for s in op.sample(rng):
        inputs = doubled(s.inputs)
        f = function_of(op, s.attrs); c = compile_function(f)
        a = results(op, f, tracked(inputs)); b = results(op, c, tracked(inputs))
        for i,(x,y) in enumerate(zip(a,b,strict=True)): agree(op, x, y, f"grad {i-1}", 1e-11)
