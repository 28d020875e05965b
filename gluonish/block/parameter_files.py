"""Parameters to and from files, and from one Block to another.

A file holds each Parameter once, under its first name; where a Parameter is shared, the metadata entry "shared" maps
its other names to that one. So a file fits Blocks that share and Blocks that do not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gluonish.block.parameter import NotInitialized, Parameter
from gluonish.nd import NDArray, files
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import shape_text, user_line

if TYPE_CHECKING:
    from gluonish.block.block import Block

_SHOWN = 8  # names listed in an error before "and ... more"


def names(all_names: Any) -> str:
    """Names for an error: the first few and how many more."""
    listed = [repr(name) for name in all_names]
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")


def save(block: Block, path: Any) -> None:
    """See `Block.save_parameters`."""
    parameters = block.collect_params()
    once = parameters.unique()
    missing = [name for name, p in once.items() if not p.initialized]
    if missing:
        raise NotInitialized(f"save_parameters: no values yet for {names(missing)}; run the net once ({user_line()})")
    first = {id(p): name for name, p in once.items()}
    shared = {name: first[id(p)] for name, p in parameters.items() if first[id(p)] != name}
    metadata = {"format": "gluonish"} | ({"shared": json.dumps(shared)} if shared else {})
    files.save(path, once, metadata)


def load(block: Block, path: Any, **options: Any) -> None:
    """See `Block.load_parameters`."""
    arrays, metadata = files.load_with_metadata(path)
    try:
        shared = json.loads(metadata.get("shared", "{}"))
        for alias, name in shared.items():
            if alias not in arrays:
                arrays[alias] = arrays[name]
    except (ValueError, AttributeError, KeyError, TypeError):
        raise files.FileError(f"{path}: its list of shared names is damaged ({user_line()})") from None
    assign(block, arrays, str(path), shared, **options)


def assign(
    block: Block,
    arrays: Mapping[str, NDArray],
    origin: str,
    shared: Mapping[str, str],
    allow_missing: bool = False,
    ignore_extra: bool = False,
    cast_dtype: bool = False,
    dtype_source: str = "current",
) -> None:
    """Sets a Block's Parameters from named arrays, after everything was checked."""
    if dtype_source not in ("current", "saved"):
        raise ValueError(f"dtype_source must be 'current' or 'saved', got {dtype_source!r} ({user_line()})")
    parameters = block.collect_params()
    given = {name for name, p in parameters.items() if name in arrays}
    have = {id(parameters[name]) for name in given}
    missing = [name for name, p in parameters.unique().items() if id(p) not in have]
    if missing and not allow_missing:
        raise ValueError(
            f"{origin} lacks {names(missing)}; it has {names(arrays)}; set allow_missing=True to keep the present "
            f"values of these ({user_line()})"
        )
    extra = [name for name in arrays if name not in parameters and name not in shared]
    if extra and not ignore_extra:
        raise ValueError(
            f"{origin} has {names(extra)}, which the net lacks; set ignore_extra=True to skip ({user_line()})"
        )
    values: dict[int, tuple[Parameter, np.ndarray, str]] = {}
    for name in parameters:
        if name in given:
            value = _checked(name, parameters[name], arrays[name], origin, cast_dtype, dtype_source)
            before = values.setdefault(id(parameters[name]), (parameters[name], value, name))
            if before[1] is not value and not np.array_equal(before[1], value, equal_nan=is_float(value.dtype)):
                raise ValueError(
                    f"{origin} has different values for {before[2]!r} and {name!r}, which are one shared parameter of "
                    f"this net ({user_line()})"
                )
    for parameter, value, _ in values.values():
        parameter.take(value)


def _checked(name: str, p: Parameter, array: NDArray, origin: str, cast_dtype: bool, dtype_source: str) -> np.ndarray:
    """The values for one Parameter, in the dtype it will have."""
    values = array.asnumpy()
    if not p.fits(values.shape):
        wanted = "(" + ", ".join(str(s or "?") for s in p.shape) + ")"
        raise ValueError(
            f"{origin}: {name!r} has shape {shape_text(values.shape)}, the net wants {wanted} ({user_line()})"
        )
    if values.dtype == p.dtype:
        return values
    if not cast_dtype:
        raise ValueError(
            f"{origin}: {name!r} is {values.dtype}, the net's is {p.dtype}; set cast_dtype=True to convert "
            f"({user_line()})"
        )
    return values if dtype_source == "saved" else values.astype(p.dtype)


def share(block: Block, shared: Mapping[str, Parameter]) -> None:
    """See `Block.share_parameters`."""
    from gluonish.block.tree import walk

    own = block.collect_params()
    both = [name for name in own if name in shared]
    if not both:
        raise ValueError(
            f"share_parameters: no name in common; the net has {names(own)}, got {names(shared)} ({user_line()})"
        )
    for name in both:
        known = shared[name].shape
        if own[name].shape and known and not own[name].fits(tuple(s or t for s, t in zip(known, own[name].shape))):
            raise ValueError(
                f"share_parameters: {name!r} has shape {shape_text(own[name].shape)} here and {shape_text(known)} "
                f"there ({user_line()})"
            )
    for path, each in walk(block):
        for name, part in list(each._members()):
            full = f"{path}.{name}" if path else name
            if isinstance(part, Parameter) and full in shared:
                _replace(each, name, shared[full])


def _replace(block: Block, name: str, parameter: Parameter) -> None:
    """Puts a Parameter where an attribute, or a place in a list or dict below it, is."""
    attribute, *places = name.split(".")
    if not places:
        setattr(block, attribute, parameter)
        return
    holder: Any = getattr(block, attribute)
    for place in places[:-1]:
        holder = holder[int(place)] if isinstance(holder, (list, tuple)) else holder[place]
    if isinstance(holder, tuple):
        raise TypeError(f"share_parameters: {name!r} stands in a tuple, use a list ({user_line()})")
    holder[int(places[-1]) if isinstance(holder, list) else places[-1]] = parameter
