"""nd: arrays and what operations on them mean. NumPy only.

One namespace: the Python array API's names, NumPy's well-known aliases, functions of neural networks.
"""

from typing import Any

from gluonish.nd import (
    autograd,  # gives NDArray its backward
    methods,  # puts operators and methods on NDArray
    random,
)
from gluonish.nd.activations import (
    celu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    log_sigmoid,
    mish,
    relu6,
    selu,
    soft_shrink,
)
from gluonish.nd.array import NDArray
from gluonish.nd.control import cond, foreach, while_loop
from gluonish.nd.create import (
    arange,
    array,
    eye,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from gluonish.nd.device import Device, cpu, gpu
from gluonish.nd.dtypes import bfloat16 as _bfloat16
from gluonish.nd.files import FileError, load, save
from gluonish.nd.functions import (
    all,
    any,
    argmax,
    argmin,
    broadcast_to,
    clip,
    concat,
    dot,
    elu,
    expand_dims,
    flatten,
    flip,
    leaky_relu,
    lerp,
    log_softmax,
    matmul,
    max,
    mean,
    min,
    nan_to_num,
    norm,
    pad,
    permute_dims,
    prod,
    repeat,
    reshape,
    softmax,
    split,
    squeeze,
    stack,
    std,
    sum,
    swapaxes,
    tile,
    var,
)
from gluonish.nd.images import bilinear_resize_2d, resize
from gluonish.nd.indexing import (
    gather_nd,
    index_add,
    index_update,
    nonzero,
    one_hot,
    pick,
    put_along_axis,
    scatter_add,
    scatter_nd,
    take,
    take_along_axis,
)
from gluonish.nd.methods import astype
from gluonish.nd.neural import average_pool, convolution, convolution_transpose, dropout, max_pool
from gluonish.nd.op import OPS, Op
from gluonish.nd.ops import special
from gluonish.nd.ops.attention import attention, attention_weights
from gluonish.nd.ops.elementwise import (
    abs,
    add,
    ceil,
    cos,
    divide,
    equal,
    erf,
    exp,
    expm1,
    floor,
    floor_divide,
    gelu,
    gelu_tanh,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    relu,
    remainder,
    round,
    rsqrt,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    sqrt,
    square,
    subtract,
    tanh,
    trunc,
    where,
)
from gluonish.nd.ops.rows import write_rows
from gluonish.nd.ops.special import polygamma
from gluonish.nd.recurrent import gru, lstm, rnn
from gluonish.nd.sequences import (
    argsort,
    cumulative_max,
    cumulative_min,
    cumulative_prod,
    cumulative_sum,
    linear_scan,
    roll,
    searchsorted,
    sort,
    topk,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)

lgamma = special.gammaln
concatenate = concat
cumsum, cumprod, unique = cumulative_sum, cumulative_prod, unique_values
transpose = permute_dims
absolute = abs


def __getattr__(name: str) -> Any:
    """Elementwise and composite ops that are not named above: their record is all that they need. And bfloat16."""
    if name == "bfloat16":
        return _bfloat16()
    op = OPS.get(name)
    if op is None or op.family not in ("elementwise", "composite"):
        raise AttributeError(f"module 'gluonish.nd' has no attribute {name!r}")
    return op
