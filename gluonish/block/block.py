"""Block: what models are made of. A tree of Blocks and Parameters with a `forward`.

Deliberately not here: compiling (`hybrid_block.py`), walking the tree (`tree.py`), files (`parameter_files.py`).
"""

from __future__ import annotations

import inspect
import re
import warnings
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gluonish.block import attributes, parameter_files, tree
from gluonish.block.abstract import abstract_run, stand_in
from gluonish.block.constant import Constant
from gluonish.block.hook import Hook
from gluonish.block.initializer import create
from gluonish.block.inputs import no_array_error
from gluonish.block.parameter import Parameter
from gluonish.block.parameter_dict import ParameterDict
from gluonish.nd import Device, NDArray, snapshot
from gluonish.nd.create import as_dtype
from gluonish.nd.device import checked
from gluonish.nd.dispatch import state
from gluonish.nd.dtypes import is_float
from gluonish.nd.errors import user_line


class _BlockType(ABCMeta):
    """The type of Block classes: counts assignments to class attributes, which compiled Blocks have to see."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("_abc"):
            attributes.changed()

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        attributes.changed()


def _in_order(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call by position; those given by position alone if the call does not fit."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return args
    bound.apply_defaults()
    return bound.args


class Block(metaclass=_BlockType):
    """Base of all models and layers: write `__init__` and `forward`.

    Blocks and Parameters assigned to attributes, also in lists and dicts, belong to it.

    >>> import gluonish as gl
    >>> from gluonish import nd, nn
    >>> class Net(gl.Block):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.body, self.output = nn.Dense(8, activation="relu"), nn.Dense(2)
    ...     def forward(self, x):
    ...         return self.output(self.body(x))
    >>> net = Net(); net.initialize(); net(nd.ones((4, 3))).shape
    (4, 2)
    >>> sorted(net.collect_params())
    ['body.bias', 'body.weight', 'output.bias', 'output.weight']
    """

    _hooks: tuple[Hook, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        values = isinstance(value, (NDArray, np.ndarray, float, int, str)) and not isinstance(value, Parameter)
        # past the watch of `attributes`: this is no read by the model
        if values and isinstance(object.__getattribute__(self, "__dict__").get(name), Parameter):
            raise TypeError(
                f"{type(self).__name__}.{name} is a Parameter and cannot become {snapshot.brief(value)}; write "
                f"net.{name}.set_data(values), or assign another Parameter or None ({user_line()})"
            )
        object.__setattr__(self, name, value)
        attributes.wrote(self, name)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        attributes.wrote(self, name)

    # --- running ---------------------------------------------------------------------------------------------------
    @tree.marks_calls
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` with its hooks."""
        if state.trace is not None:
            return self._traced(state.trace, args, kwargs)
        try:
            return self._hooked(self.forward, args, kwargs) if self._hooks else self.forward(*args, **kwargs)
        except Exception as error:
            better = self._explained(error, args, kwargs)
            if better is error:
                raise
            raise better from None

    def _traced(self, trace: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call inside a trace: what is traced meanwhile belongs to this Block."""
        outer, trace.owner = trace.owner, self
        try:
            out = self._hooked(self.forward, args, kwargs) if self._hooks else self.forward(*args, **kwargs)
            if id(self) in trace.wanted:
                trace.wanted[id(self)].append(out)
            return out
        except Exception as error:
            better = self._explained(error, args, kwargs)
            if better is error:
                raise
            raise better from None
        finally:
            trace.owner = outer

    def _explained(self, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception:
        """An error of `forward` as the user should see it: reworded by the layer, or with its path as a note."""
        ordered = _in_order(self.forward, args, kwargs) if kwargs else args
        better = self.reworded(error, ordered)
        if better is error:
            better = no_array_error(self, error, ordered)
        if better is error:
            _note_place(error, self)
        return better

    def reworded(self, error: Exception, args: tuple[Any, ...]) -> Exception:
        """A better error for one that `forward` raised on these arguments, or the same one; for layers to override."""
        return error

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the Block computes; every Block writes its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method")

    def _hooked(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks = self._hooks
        for hook in hooks:
            if hook.before:
                hook.function(self, args)
        out = run(*args, **kwargs)
        for hook in hooks:
            if not hook.before:
                hook.function(self, args, out)
        return out

    def register_forward_hook(self, hook: Callable[[Block, Any, Any], None]) -> Hook:
        """Calls `hook(block, inputs, output)` after each forward; in a hybridized parent, when that is traced."""
        return self._add_hook(Hook(self, hook, before=False))

    def register_forward_pre_hook(self, hook: Callable[[Block, Any], None]) -> Hook:
        """Calls `hook(block, inputs)` before each forward."""
        return self._add_hook(Hook(self, hook, before=True))

    def _add_hook(self, hook: Hook) -> Hook:
        self._hooks = (*self._hooks, hook)
        return hook

    def infer_shape(self, *args: Any) -> None:
        """Finds the unknown shapes of Parameters by running `forward` on shapes alone; args are arrays, or shapes."""
        with abstract_run():
            self(*[stand_in(x) for x in args])
        for p in self.collect_params().unique().values():
            p.settle()

    # --- the tree --------------------------------------------------------------------------------------------------
    def _members(self) -> Iterator[tuple[str, Any]]:
        """The Blocks and Parameters that are attributes, with their names."""
        for name, value in list(vars(self).items()):
            yield from tree.leaves(name, value)

    def named_children(self) -> Iterator[tuple[str, Block]]:
        """The Blocks directly below, with their names."""
        return ((name, part) for name, part in self._members() if isinstance(part, Block))

    def children(self) -> list[Block]:
        """The Blocks directly below."""
        return [child for _, child in self.named_children()]

    def register_child(self, block: Block, name: str | None = None) -> None:
        """Adds a Block below; the same as assigning it to an attribute."""
        setattr(self, name if name is not None else str(len(self.children())), block)

    def apply(self, function: Callable[[Block], Any]) -> Block:
        """Calls `function(block)` for every Block below, then for this one; gives itself."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def hybridize(self, active: bool = True, **flags: Any) -> None:
        """Hybridizes the HybridBlocks below."""
        for child in self.children():
            child.hybridize(active, **flags)

    # --- parameters ------------------------------------------------------------------------------------------------
    def collect_params(self, select: str | None = None) -> ParameterDict:
        """All Parameters by attribute path, or those whose path matches a regular expression (from its start).

        Raises: ValueError for a malformed expression.
        """
        found = ParameterDict()
        for path, block in tree.walk(self):
            for name, part in block._members():
                if isinstance(part, Parameter):
                    found[f"{path}.{name}" if path else name] = part
        for name, p in found.unique().items():
            p.rename(name)
        if select is None:
            return found
        try:
            pattern = re.compile(select)
        except re.error as error:
            raise ValueError(
                f"collect_params: {select!r} is not a regular expression: {error} ({user_line()})"
            ) from None
        chosen = ParameterDict({name: p for name, p in found.items() if pattern.match(name)})
        chosen.selected_by = select
        return chosen

    def initialize(
        self,
        init: Any = None,
        device: Device | None = None,
        verbose: bool = False,
        force_reinit: bool = False,
        ctx: Device | None = None,
    ) -> None:
        """Gives the Parameters that have no values their first ones, as soon as their shapes are known.

        init: for those without an initializer of their own, Uniform(0.07) by default. Where every Parameter has values
        already, nothing happens but a UserWarning, unless `force_reinit`.
        Raises: ValueError for an unknown initializer or device.
        """
        init = create(init) if init is not None else None
        parameters = self.collect_params()
        own = [p for p in parameters.values() if not isinstance(p, Constant)]
        if own and not force_reinit and all(p.initialized for p in own):
            warnings.warn(
                "every parameter has values already; initialize(force_reinit=True) draws new ones", stacklevel=2
            )
        parameters.initialize(init, device, verbose, force_reinit, ctx)

    def setattr(self, name: str, value: Any) -> None:
        """Sets an attribute of all Parameters: `net.setattr("grad_req", "null")`."""
        self.collect_params().setattr(name, value)

    def zero_grad(self) -> None:
        """Sets all gradients to zero."""
        self.collect_params().zero_grad()

    def cast(self, dtype: Any) -> None:
        """Changes the dtype of all floating-point Parameters."""
        as_dtype(dtype)
        for p in self.collect_params().unique().values():
            if is_float(p.dtype):
                p.cast(dtype)

    def reset_device(self, device: Device) -> None:
        """Moves all Parameters to a device. Raises: ValueError for one that is not there."""
        checked(device)

    reset_ctx = reset_device

    def share_parameters(self, shared: Mapping[str, Parameter]) -> Block:
        """Replaces its Parameters by those of `shared` with the same names; gives itself.

        Raises: ValueError if no name is the same, or if shapes do not fit.
        """
        parameter_files.share(self, shared)
        return self

    def save_parameters(self, path: Any) -> None:
        """Writes all Parameters to a safetensors file; if that fails, an old file stays as it was.

        A shared Parameter is stored once, under its first name; the file lists its other names.
        Raises: NotInitialized if one has no values; OSError if the file cannot be written.
        """
        parameter_files.save(self, path)

    def load_parameters(
        self,
        path: Any,
        device: Device | None = None,
        ctx: Device | None = None,
        allow_missing: bool = False,
        ignore_extra: bool = False,
        cast_dtype: bool = False,
        dtype_source: str = "current",
    ) -> None:
        """Reads Parameters from a safetensors file. Either all are set, or none is.

        allow_missing: Parameters that the file lacks keep their values. ignore_extra: names that the net lacks are
        skipped. cast_dtype: other dtypes are converted to the net's (or, with dtype_source="saved", to the file's).
        Raises: FileNotFoundError; FileError for a damaged file; ValueError listing the names or shapes that do not fit.
        """
        checked(device or ctx)
        options = {"allow_missing": allow_missing, "ignore_extra": ignore_extra, "cast_dtype": cast_dtype}
        parameter_files.load(self, path, dtype_source=dtype_source, **options)

    def load_dict(self, arrays: Mapping[str, NDArray], device: Device | None = None, **options: Any) -> None:
        """`load_parameters`, with its options, from a dict of arrays."""
        checked(device)
        parameter_files.assign(self, arrays, "the dict", {}, **options)

    # --- looking ---------------------------------------------------------------------------------------------------
    def inspect(self, *inputs: Any) -> Any:
        """What Blocks inside give for some inputs: `net.inspect(x, "features.3")`, or a list of paths for a list.

        The last argument is the path of a Block ("" is the whole), as in the names of its Parameters. Where the Block
        is hybridized the values are those of a compiled program. A Block that ran several times gives a list. Nothing
        is changed: neither running statistics nor the random numbers to come.

        >>> import gluonish as gl
        >>> from gluonish import nd, nn
        >>> net = nn.HybridSequential(nn.Dense(4), nn.HybridSequential(nn.Activation("relu"), nn.Dense(2)))
        >>> net.initialize(); net.hybridize()
        >>> [a.shape for a in net.inspect(nd.ones((3, 5)), ["0", "1.0", ""])]
        [(3, 4), (3, 4), (3, 2)]

        Raises: ValueError for a path that is no Block or did not run.
        """
        from gluonish.block.inspection import inspect

        return inspect(self, inputs[:-1], inputs[-1] if inputs else "")

    def summary(self, *inputs: NDArray) -> None:
        """Runs the inputs through (in predict mode) and prints each layer's output shape and parameters."""
        from gluonish.block.summary import summary_text

        print(summary_text(self, inputs))

    def _describe(self) -> str:
        """What the printed tree says about this Block between the parentheses; layers write their own."""
        return ""

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        inside = self._describe() + ("\n" + "\n".join(lines) + "\n" if lines else "")
        return f"{type(self).__name__}({inside})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_compiled"}  # a copy compiles its own


def _note_place(error: Exception, block: Block) -> None:
    """Adds the path of the innermost Block that was running to an error that does not name it."""
    if getattr(error, "_gluonish_place", False) or not hasattr(error, "add_note"):
        return
    name = tree.title(block)
    error._gluonish_place = True  # type: ignore[attr-defined]
    if name not in str(error):
        error.add_note(f"in the forward of {name}")


attributes.set_watched_class(Block)
snapshot.compare_by_identity(Block)
tree.set_block_class(Block)
