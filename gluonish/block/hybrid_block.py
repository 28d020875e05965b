"""HybridBlock: a Block that `hybridize()` compiles. `gluonish.hybrid` does all of it; here is only when."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Any

from gluonish.block import tree
from gluonish.block.block import Block
from gluonish.block.parameter import Parameter
from gluonish.block.tree import marks_calls, title
from gluonish.nd import autograd
from gluonish.nd.dispatch import state
from gluonish.nd.errors import user_line

if TYPE_CHECKING:
    from gluonish.hybrid.memory import Memory

_IGNORED_FLAGS = ("static_alloc", "static_shape", "inline_limit", "forward_bulk_size", "backward_bulk_size")


class HybridBlock(Block):
    """A Block whose `forward` can be compiled: after `hybridize()`, calls run fused kernels instead of single ops.

    Nothing changes but the speed: shapes and Python attributes may change at any time, train and predict mode are told
    apart, Parameters stay the same arrays. Within the trace of a Block above it, it is part of that Block's program.
    """

    _active = False
    _compiled: Any = None
    _options: tuple[tuple[str, Any], ...] = ()  # flags of `hybridize`; a dict would be compared at every call

    def hybridize(self, active: bool = True, **flags: Any) -> None:
        """Compiles later calls (or stops that), of this Block and of those below.

        fallback=True: a Block whose forward needs values (`if x.sum() > 0:`) runs step by step, and the Blocks inside
        it are compiled by themselves, instead of an error; `explain()` says so. verify=True: every new variant is
        compared with an eager run; where they differ, a warning names the first op that does, and calls go on eagerly.
        background=True: calls run eagerly while kernels compile in a thread. remat=True: the backward computes most of
        the forward again instead of keeping it. MXNet's flags (static_alloc, static_shape, ...) are accepted and change
        nothing.
        Raises: TypeError for an unknown flag.
        """
        own = {flag: value for flag, value in flags.items() if flag not in _IGNORED_FLAGS}
        if own:
            from gluonish.hybrid.options import options_of

            options_of(own)
        self._active = bool(active)
        self._compiled = None
        self._options = tuple(own.items())
        super().hybridize(active, **flags)

    @marks_calls
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` with its hooks, compiled if hybridized."""
        # inside a trace `_compiled` must not be read: the watch would take it for a fact about the model
        if state.trace is not None:
            return self._traced(state.trace, args, kwargs)
        try:
            if self._hooks:
                return self._hooked(self._run, args, kwargs)
            if self._active and not state.eager:
                return (self._compiled or self._compile()).run(args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            better = self._explained(error, args, kwargs)
            if better is error:
                raise
            raise better from None

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """What the hooks are called around."""
        run = self._compiled or self._compile() if self._active else self.forward
        return run(*args, **kwargs)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)  # looked up at each trace, so that a replaced forward is seen

    def _compile(self) -> Any:
        """The compiled function of this Block, made at its first use."""
        if self._compiled is None:
            from gluonish.hybrid import compile_function
            from gluonish.hybrid.options import options_of

            compiled = compile_function(self._forward, type(self).__name__, options_of(dict(self._options)))
            object.__setattr__(self, "_compiled", compiled)  # past the watch: no fact about the model changes
        return self._compiled

    def _need(self, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises TypeError unless the arguments fit `forward`."""
        try:
            signature(self.forward).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{what} looks at a call of {title(self)}, and wants its arguments, as in net.{what}(x): {error} "
                f"({user_line()})"
            ) from None

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The optimised graph of a call with these arguments; prints as text, and shows as a picture in a notebook."""
        self._need("graph", args, kwargs)
        graph = self._compile().graph(*args, **kwargs)
        graph.path_of = self._path_of()
        return graph

    def passes(self, *args: Any, **kwargs: Any) -> Any:
        """(name of the pass, graph after it) of such a call, from the trace on."""
        self._need("passes", args, kwargs)
        found, path_of = self._compile().passes(*args, **kwargs), self._path_of()
        for _, graph in found:
            graph.path_of = path_of
        return found

    def kernels(self, *args: Any, **kwargs: Any) -> Any:
        """The generated kernels of a call with these arguments."""
        self._need("kernels", args, kwargs)
        return self._compile().kernels(*args, **kwargs)

    def memory(self, *args: Any, train: bool = False, **kwargs: Any) -> Memory:
        """How many bytes a call with such arguments needs, by Block; known before anything runs. See `Memory`.

        train: of a call under `autograd.record()` and its backward.

        >>> from gluonish import nd, nn
        >>> net = nn.Dense(1000, in_units=1000); net.initialize()
        >>> net.memory(nd.ones((2, 1000))).of("weights")
        4004000
        """
        from gluonish.hybrid.memory import memory_of

        self._need("memory", args, kwargs)
        compiled = self._compile()
        with autograd.record() if train else autograd.pause():
            variant, sizes = compiled.variant_and_sizes(*args, **kwargs)
        return memory_of(variant, sizes, self._path_of())

    def _path_of(self) -> Callable[[Any], str]:
        """A function that gives the path of a Block, or of the Block that a Parameter belongs to; "" for others."""
        paths: dict[int, str] = {}
        for path, block in tree.walk(self):
            for part in (block, *(p for _, p in block._members() if isinstance(p, Parameter))):
                paths.setdefault(id(part), path)
        return lambda part: paths.get(id(part), "")

    def explain(self, *args: Any, time: bool = False, **kwargs: Any) -> str:
        """Which variants are compiled, why each was, and which line of the model caused it.

        `explain(x)` and `explain(time=True)` also measure what each kernel takes.
        """
        return self._compile().explain(*args, time=time, **kwargs)

    def export(self, path: Any, *args: Any, **options: Any) -> Any:
        """Writes `path.json` and `path.safetensors`, which `SymbolBlock.imports` runs without this Python code."""
        from gluonish.hybrid import export_model

        return export_model(self._compile(), path, self.collect_params().unique(), *args, **options)
