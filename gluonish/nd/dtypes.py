"""bfloat16, which NumPy lacks, and what the two half-width float types have in common.

bfloat16 is the upper half of a float32: its range, with 8 bits of precision. The dtype itself comes from the package
`ml_dtypes`, loaded at first use. Ops on half-width floats, bfloat16 and float16, compute in float32 and round each
result once; compiled or not, that is the same arithmetic.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gluonish.nd.errors import user_line

SINGLE = np.dtype("float32")
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"gluonish\.nd\.dtypes")  # as in `dispatch`
_HALVES = "eE"  # what NumPy calls float16 and ml_dtypes bfloat16


def bfloat16() -> np.dtype:
    """The dtype. Raises: ImportError that names the extra, where `ml_dtypes` is not installed."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"bfloat16 needs ml_dtypes: pip install 'gluonish[bfloat16]' ({user_line()})") from None
    return np.dtype(ml_dtypes.bfloat16)


def is_bfloat16(dtype: Any) -> bool:
    """Whether a NumPy dtype is bfloat16."""
    return dtype.char == "E"


def is_float(dtype: Any) -> bool:
    """Whether a dtype is of floating-point numbers. (To NumPy, bfloat16 is of kind "V".)"""
    return dtype.kind == "f" or dtype.char == "E"


def is_half(dtype: Any) -> bool:
    """Whether a dtype is float16 or bfloat16."""
    return dtype.char in _HALVES


def single_of(dtype: np.dtype) -> np.dtype:
    """float32 for half-width floats, the dtype itself for others."""
    return SINGLE if dtype.char in _HALVES else dtype


def in_singles(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` made to compute half-width floats in float32, with its float32 result rounded to theirs."""

    if getattr(forward, "in_singles", False):
        return forward

    @functools.wraps(forward)
    def wide(*values: Any, **attrs: Any) -> Any:
        for x in values:
            if type(x) is np.ndarray and x.dtype.char in _HALVES:
                break
        else:
            return forward(*values, **attrs)
        half = x.dtype
        out = forward(*[v.astype(SINGLE) if getattr(v, "dtype", None) == half else v for v in values], **attrs)
        if out.dtype != SINGLE or "dtype" in attrs:
            return out
        with np.errstate(all="ignore"):  # beyond its range a float16 is infinite
            return out.astype(half)

    wide.in_singles = True  # type: ignore[attr-defined]
    return wide
