"""The one door: every op call of every array goes through `bind`.

`bind` evaluates the op with NumPy, or hands it to the trace under way, and notes it on the tape when recording. It is
the hottest Python code of the library: no context managers, no closures, nothing computed that is not needed.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from gluonish.nd.array import NDArray
    from gluonish.nd.op import Op


# Inf and NaN are answers here, not accidents. Ops silence NumPy's warnings about them (op.quiet), but for the few whose
# forward is a bare NumPy function, called from this module: there the silence must cost nothing.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"gluonish\.nd\.dispatch")


class EachRun(Protocol):
    """What Python does around each run of a trace, beside the ops: counting, filling in numbers."""

    def holds(self) -> bool:
        """Whether the trace is still right."""

    def before(self) -> None:
        """Called before each run."""

    def after(self) -> None:
        """Called after each run that raised nothing."""


class TraceLike(Protocol):
    """What arrays and ops ask of a trace under way.

    blocks: how many random blocks a run draws. owner: the innermost Block that is running, which the Block says. cause:
    during a backward, the array whose gradient rule is running. wanted: by id of a Block, where to put what it gives
    (`Block.inspect`). computes: whether arrays have values after all.
    """

    blocks: Any
    owner: Any
    cause: Any
    wanted: dict[int, list[Any]]
    computes: bool

    def bind(self, op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any]) -> NDArray:
        """The output of one op call."""

    def capture(self, array: NDArray) -> NDArray:
        """The trace's own array for one that may come from outside."""

    def assign(self, array: NDArray, key: Any, value: Any) -> None:
        """`array[key] = value`."""

    def gradient(self, array: NDArray) -> NDArray | None:
        """`array.grad`."""

    def refuse_change(self, array: NDArray, what: str) -> None:
        """Raises where `what` would change the gradient of an array once, and not at each run."""

    def before_backward(self, heads: list[NDArray]) -> None:
        """A walk over the tape of the heads is about to begin."""

    def given(self, array: NDArray) -> bool:
        """Whether a backward of this trace gave the array a gradient."""

    def at_each_run(self, work: EachRun) -> None:
        """Python's part of what is being traced, which the graph cannot have."""

    def note_values(self, array: NDArray) -> None:
        """Python reads the values of a real array."""

    def print_later(self, values: tuple[Any, ...], options: dict[str, Any]) -> None:
        """`gl.print`: at each run."""

    def random_key(self, blocks: Any) -> NDArray:
        """The key of the next draw, of so many blocks."""

    def loop(self, step: Any, data: Any, states: Any, length: Any, while_true: bool) -> Any:
        """The outputs, stacked, and the last states of `outs, states = step(slices, states)` done `length` times; with
        `while_true` as long as the last state is true."""

    def branch(self, predicate: NDArray, choices: Any) -> list[NDArray]:
        """What the first choice gives if the predicate is true, else what the second gives."""


class State(threading.local):
    """What the running thread is doing. `trace` is the trace under way. `eager`: what is compiled runs op by op all the
    same. `silent`: a call is repeated for its values, `gl.print` prints nothing."""

    recording = False
    training = False
    eager = False
    silent = False
    trace: TraceLike | None = None


state = State()
order = itertools.count(1)  # position on the tape; a later op has a larger number
NO_ATTRS: dict[str, Any] = {}
ERRORS = (ValueError, TypeError, IndexError, OverflowError)  # what NumPy raises for inputs that do not fit
_new = object.__new__
_watch: Any = None
_array_type: Any = None  # NDArray, set by its module: importing it here would be a circle


def set_watch(watch: Any) -> None:
    """Told once by `block`: what sees which attributes of Blocks a trace reads (`block/attributes.py`)."""
    global _watch
    _watch = watch


def watch() -> Any:
    """The watch of attributes; None as long as there are no Blocks."""
    return _watch


def set_array_type(array_type: type) -> None:
    """Told once by `nd/array.py`."""
    global _array_type
    _array_type = array_type


def bind(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any] = NO_ATTRS) -> NDArray:
    """Applies `op` to NDArrays (elementwise ops also take Python numbers) and gives its output."""
    current = state
    if current.trace is None:
        try:
            data = op.forward(*[x._data if isinstance(x, _array_type) else x for x in inputs], **attrs)
        except ERRORS as error:
            raise explained(op, inputs, attrs, error) from None
        out = _new(_array_type)
        out._data = data if type(data) is np.ndarray else np.asarray(data)
        out._grad = out._entry = None
        out._version = inputs[0]._version if op.family == "move" and out._data.base is not None else [0]
        if current.recording:
            note(op, inputs, attrs, out)
        return out
    return current.trace.bind(op, inputs, attrs)


def bind_pair(op: Op, x: NDArray, y: NDArray) -> NDArray:
    """`bind` for an elementwise op of two float32 arrays: what `a + b` costs is decided here."""
    current = state
    if current.trace is not None:
        return current.trace.bind(op, (x, y), NO_ATTRS)
    try:
        data = op.raw(x._data, y._data)
    except ERRORS as error:
        raise explained(op, (x, y), NO_ATTRS, error) from None
    out = _new(_array_type)
    out._data = data if type(data) is np.ndarray else np.asarray(data)
    out._grad = out._entry = None
    out._version = [0]
    if current.recording:
        note(op, (x, y), NO_ATTRS, out)
    return out


def note(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any], out: NDArray) -> None:
    """Puts one op on the tape if a gradient can flow through it.

    A tape entry is the tuple (order, op, inputs, attrs, (data, version) of the output, sum of the versions of inputs
    and output, index of the output). Entries refer only backwards, so a tape nobody needs any more is freed like any
    other object.
    """
    versions = out._version[0]
    wanted = False
    for x in inputs:
        if isinstance(x, _array_type):
            versions += x._version[0]
            if x._entry is not None or x._grad is not None:
                wanted = True
    if wanted and op.vjp is not None:
        out._entry = (next(order), op, inputs, attrs, (out._data, out._version), versions, 0)


def as_array(value: Any) -> NDArray:
    """`value` itself if it is an NDArray, else an NDArray of it."""
    if isinstance(value, _array_type):
        return value
    from gluonish.nd.create import array

    return array(value)


def explained(op: Op, inputs: tuple[Any, ...], attrs: dict[str, Any], error: Exception) -> Exception:
    """The error of the op's own rule if it has one for these inputs, else what NumPy said, at the user's line."""
    from gluonish.nd.errors import user_line

    line = user_line()
    if line in str(error):
        return error
    try:
        op.rule(*[x if not isinstance(x, _array_type) else x.spec for x in inputs], **attrs)
    except ERRORS as better:
        if line in str(better):
            return better
    kind = next(k for k in ERRORS if isinstance(error, k))  # NumPy's own subclasses cannot be made from a text
    return kind(f"{op.name}: {error} ({line})")
