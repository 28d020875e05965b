"""HybridBlock: a Block that `hybridize()` compiles. `gluonish.hybrid` does all of it; here is only when."""

from __future__ import annotations

from typing import Any

from gluonish.block.block import Block
from gluonish.block.tree import marks_calls
from gluonish.nd.dispatch import state
from gluonish.nd.errors import user_line

_IGNORED_FLAGS = ("static_alloc", "static_shape", "inline_limit", "forward_bulk_size", "backward_bulk_size")


class HybridBlock(Block):
    """A Block whose `forward` can be compiled: after `hybridize()`, calls run fused kernels instead of single ops.

    Nothing changes but the speed: shapes and Python attributes may change at any time, train and predict mode are told
    apart, Parameters stay the same arrays. Within the trace of a Block above it, it is part of that Block's program.
    """

    _active = False
    _compiled: Any = None
    _fallback = False

    def hybridize(self, active: bool = True, **flags: Any) -> None:
        """Compiles later calls (or stops that), of this Block and of those below.

        fallback=True: a Block whose forward needs values (`if x.sum() > 0:`) runs step by step, and the Blocks inside
        it are compiled by themselves, instead of an error; `explain()` says so. MXNet's flags (static_alloc,
        static_shape, ...) are accepted and change nothing.
        Raises: TypeError for an unknown flag.
        """
        unknown = [flag for flag in flags if flag not in (*_IGNORED_FLAGS, "fallback")]
        if unknown:
            raise TypeError(f"hybridize: unknown flag {', '.join(unknown)} ({user_line()})")
        self._active = bool(active)
        self._compiled = None
        self._fallback = bool(flags.get("fallback", False))
        super().hybridize(active, **flags)

    @marks_calls
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` with its hooks, compiled if hybridized."""
        # inside a trace `_compiled` must not be read: the watch would take it for a fact about the model
        if state.trace is not None or not self._active:
            run: Any = self.forward
        else:
            run = self._compiled
            if run is None:
                run = self._compile()
        try:
            return self._hooked(run, args, kwargs) if self._hooks else run(*args, **kwargs)
        except Exception as error:
            better = self._explained(error, args)
            if better is error:
                raise
            raise better from None

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)  # looked up at each trace, so that a replaced forward is seen

    def _compile(self) -> Any:
        """The compiled function of this Block, made at its first use."""
        if self._compiled is None:
            from gluonish.hybrid import compile_function

            compiled = compile_function(self._forward, type(self).__name__, self._fallback)
            object.__setattr__(self, "_compiled", compiled)  # past the watch: no fact about the model changes
        return self._compiled

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The optimised graph of a call with these arguments; prints as text."""
        return self._compile().graph(*args, **kwargs)

    def passes(self, *args: Any, **kwargs: Any) -> Any:
        """(name of the pass, graph after it) of such a call, from the trace on."""
        return self._compile().passes(*args, **kwargs)

    def kernels(self, *args: Any, **kwargs: Any) -> Any:
        """The generated kernels of a call with these arguments."""
        return self._compile().kernels(*args, **kwargs)

    def explain(self) -> Any:
        """Which variants are compiled, why each was, and which line of the model caused it."""
        return self._compile().explain()

    def export(self, path: Any, *args: Any, **options: Any) -> Any:
        """Writes `path.json` and `path.safetensors`, which `SymbolBlock.imports` runs without this Python code."""
        from gluonish.hybrid import export_model

        return export_model(self._compile(), path, self.collect_params().unique(), *args, **options)
