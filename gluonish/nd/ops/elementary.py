"""More elementwise ops that NumPy's users know: powers and logarithms of 2 and 10, roots, parts of numbers.

Deliberately not here: the common ones (`elementwise.py`), erfc, gamma and their like (`special.py`).
"""

from __future__ import annotations

import math as constants

from gluonish.nd.ops.elementwise import elementwise, sigmoid, sign, smooth_function, trunc

_LN2, _LN10 = constants.log(2), constants.log(10)

exp2 = smooth_function("exp2", lambda m, x: m.exp2(x), lambda y, x: y * _LN2, "2 to the power x.")
log2 = smooth_function(
    "log2", lambda m, x: m.log2(x), lambda y, x: (1 / _LN2) / x, "The logarithm to base 2.", domain=(0.2, 4.0)
)
log10 = smooth_function(
    "log10", lambda m, x: m.log10(x), lambda y, x: (1 / _LN10) / x, "The logarithm to base 10.", domain=(0.2, 4.0)
)
cbrt = smooth_function(
    "cbrt", lambda m, x: m.cbrt(x), lambda y, x: (1 / 3) / (y * y), "The number whose cube is x.", domain=(0.2, 4.0)
)
hypot = elementwise(
    "hypot",
    lambda m, x, y: m.hypot(x, y),
    (lambda g, z, x, y: g * (x / z), lambda g, z, x, y: g * (y / z)),
    accepts="float",
    arity=2,
    domain=(0.3, 3.0),
    doc="sqrt(x * x + y * y) without overflow; Inf if either is infinite.",
)
copysign = elementwise(
    "copysign",
    lambda m, x, y: m.copysign(x, y),
    (lambda g, z, x, y: g * (sign(x) * sign(z)), None),
    accepts="float",
    arity=2,
    domain=(0.2, 3.0),
    doc="|x| with the sign of y, that of zeros and NaN included.",
)
fmod = elementwise(
    "fmod",
    lambda m, x, y: m.fmod(x, y),
    (lambda g, z, x, y: g, lambda g, z, x, y: -g * trunc(x / y)),
    accepts="number",
    arity=2,
    domain=(0.5, 3.0),
    doc="x - trunc(x / y) * y, with the sign of x; 0 for an integer by 0.",
)
logaddexp = elementwise(
    "logaddexp",
    lambda m, x, y: m.where(x == y, x + _LN2, m.maximum(x, y) + m.log1p(m.exp(-m.abs(x - y)))),
    (lambda g, z, x, y: g * sigmoid(x - y), lambda g, z, x, y: g * sigmoid(y - x)),
    accepts="float",
    arity=2,
    doc="log(exp(x) + exp(y)), without overflow.",
)
