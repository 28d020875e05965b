"""CompiledFunction: a Python function of arrays, traced and compiled once per kind of call.

A variant is one trace. It is valid while its guards hold: structure of the arguments, ranks, dtypes, train or predict
mode, recording or not, sizes that Python branched on, attributes that the trace read, which arrays want gradients. A
call that no variant fits makes a new one; the old ones are kept (the least recently used go first).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from gluonish.hybrid.graph import TraceError
from gluonish.hybrid.numerics import current_precision
from gluonish.hybrid.options import PLAIN, Options, options_of
from gluonish.hybrid.passes import run_passes
from gluonish.hybrid.repeat import Repeats
from gluonish.hybrid.replace import KernelCall
from gluonish.hybrid.stepwise import Stepwise
from gluonish.hybrid.timing import example, measured
from gluonish.hybrid.variant import Variant, trace_variant
from gluonish.nd import collector
from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.errors import user_line
from gluonish.nd.tree import call_text, flatten, plain

LIMIT = 32  # variants kept per function


class CompiledFunction:
    """Calls `function` through compiled programs. Arguments and results may nest lists, tuples, dicts and None.

    function: of NDArrays (and hashable plain values, which become guards). Which Python attributes of Blocks a trace
    read is seen by the watch (`gluonish.block.attributes`), so that a changed one makes a new variant. options: see
    `Options`.
    """

    def __init__(self, function: Callable[..., Any], name: str = "", options: Options = PLAIN) -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", "function")
        self.options = options
        self.variants: list[Any] = []  # Variant, or Stepwise
        self.inspections: dict[Any, CompiledFunction] = {}  # of what is inside (`Block.inspect`)
        self.repeats = Repeats()
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program that fits the arguments; traces and compiles one if none does."""
        if state.trace is not None or state.eager:  # inside another trace: becomes part of it
            return self.function(*args, **kwargs)
        return self.run(args, kwargs)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same where no trace is under way."""
        repeat = None if kwargs else self.repeats.find(args)
        if repeat is not None:
            return repeat.variant.call(args, repeat.sizes)
        if not kwargs and all(type(a) is NDArray for a in args):
            variant, sizes = self._variant(plain(len(args)), args)
            self.repeats.note(variant, args, sizes)
            return variant.call(args, sizes)
        arrays: list[NDArray] = []
        structure = flatten((args, kwargs), arrays)
        variant, sizes = self._variant(structure, arrays)
        return variant.call(arrays, sizes)

    def _variant(self, structure: Any, arrays: Sequence[NDArray]) -> tuple[Variant, tuple[int, ...]]:
        """The variant for a call, and the call's sizes."""
        mode = (structure, state.training, state.recording, current_precision())
        for position, variant in enumerate(self.variants):
            if variant.mode == mode:
                sizes = variant.fits(arrays)
                if sizes is not None:
                    if position > 3:
                        self._move_up(variant)
                    return variant, sizes
        variant = self._new_variant(mode, structure, arrays)
        return variant, variant.match(arrays)

    def _move_up(self, variant: Variant) -> None:
        with self._lock:
            if variant in self.variants:
                self.variants.remove(variant)
                self.variants.insert(0, variant)

    def _new_variant(self, mode: Any, structure: Any, arrays: Sequence[NDArray]) -> Variant:
        with self._lock, collector.at_rest():
            for variant in self.variants:  # another thread may have made it meanwhile
                if variant.mode == mode and variant.fits(arrays) is not None:
                    return variant
            reason = self._reason(mode, arrays)
            try:
                variant = trace_variant(self, mode, structure, arrays)
            except TraceError as error:
                if not self.options.fallback:
                    raise
                variant = Stepwise(self, mode, arrays, error)
            variant.reason = reason
            self.variants.insert(0, variant)
            del self.variants[LIMIT:]
            return variant

    def _reason(self, mode: Any, arrays: Sequence[NDArray]) -> str:
        if not self.variants:
            return f"first call ({user_line()})"
        same_mode = [v for v in self.variants if v.mode == mode]
        if not same_mode:
            nearest = max(self.variants, key=lambda v: [a == b for a, b in zip(v.mode, mode)])
            return f"{_mode_change(nearest.mode, mode)} ({user_line()})"
        same_rank = [v for v in same_mode if [len(a.shape) for a in v.arguments] == [x.ndim for x in arrays]]
        return f"{(same_rank or same_mode)[0].misfit(arrays)} ({user_line()})"

    def variant_for(self, *args: Any, **kwargs: Any) -> Variant:
        """The variant that a call with these arguments uses, traced now if there is none."""
        return self.variant_and_sizes(*args, **kwargs)[0]

    def variant_and_sizes(self, *args: Any, **kwargs: Any) -> tuple[Variant, tuple[int, ...]]:
        """The same, and the sizes of such a call."""
        arrays: list[NDArray] = []
        structure = flatten((args, kwargs), arrays)
        return self._variant(structure, arrays)

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The optimised graph for such arguments; print it to read it."""
        return self.variant_for(*args, **kwargs).optimised

    def passes(self, *args: Any, **kwargs: Any) -> list[tuple[str, Any]]:
        """(name of the pass, graph after it) for such arguments, beginning with ("trace", graph)."""
        variant = self.variant_for(*args, **kwargs)
        seen = [("trace", variant.traced)]
        run_passes(variant.traced, lambda name, graph: seen.append((name, graph)))
        return seen

    def kernels(self, *args: Any, **kwargs: Any) -> list[KernelCall]:
        """The kernels of the program for such arguments, with their Python sources; see `KernelCall`."""
        variant, sizes = self.variant_and_sizes(*args, **kwargs)
        return [KernelCall(variant, step) for step in variant.program.steps_at(sizes)]

    def explain(self, *args: Any, time: bool = False, **kwargs: Any) -> str:
        """Which variants exist, why each was traced, what it relies on, and what runs slower than it could.

        With arguments, or with time=True: also what each kernel takes, measured now; see `timing.py`.
        """
        if args or kwargs:
            variant, sizes = self.variant_and_sizes(*args, **kwargs)
            arrays: list[NDArray] = []
            flatten((args, kwargs), arrays)
            timed = {id(variant): measured(variant, arrays, sizes)}
        else:
            traced = [v for v in self.variants if time and not isinstance(v, Stepwise)]
            timed = {id(v): measured(v, x := example(v), v.match(x)) for v in traced}
        rows = [f"{self.name}: {len(self.variants)} variant(s), latest used first"]
        for number, variant in enumerate(self.variants):
            rows.append(f"  variant {number}: {variant.reason}")
            rows += [f"    {line}" for line in (*variant.explain(), *timed.get(id(variant), ()))]
        return "\n".join(rows)


def _mode_change(before: Any, now: Any) -> str:
    """What is new about a call, in words."""
    if before[0] != now[0]:
        return f"arguments {call_text(now[0])}, not {call_text(before[0])}"
    if before[1] != now[1]:
        return "train mode" if now[1] else "predict mode"
    if before[3] != now[3]:
        return f"precision {now[3]!r}"
    return "under autograd.record()" if now[2] else "outside autograd.record()"


def compile_function(function: Callable[..., Any], name: str = "", options: Options = PLAIN) -> CompiledFunction:
    """`function`, traced and compiled at its first call of each kind; see CompiledFunction."""
    return CompiledFunction(function, name, options)


def hybridize(function: Callable[..., Any], **options: bool) -> CompiledFunction:
    """Compiles a plain function of arrays; usable as a decorator. options: see `Options`.

    >>> import gluonish as gl
    >>> from gluonish import nd
    >>> @gl.hybridize
    ... def f(x):
    ...     return (x * 2 + 1).sum()
    >>> f(nd.array([1.0, 2.0])).item()
    8.0
    """
    return CompiledFunction(function, options=options_of(options))
