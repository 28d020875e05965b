"""Which instructions kernels may use: the host's, or a restricted set that still runs on the host.

Restricting is for tests and for code that must be the same on several machines: `GLUONISH_CPU=avx2` for a process,
`with use(named("avx2")):` for a block of code. `arm()` is another machine's: objects are made here, and run there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

LEVELS = ("avx512", "avx2", "generic")
_NEEDS = {
    "avx512": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"),
    "avx2": ("avx2", "fma", "f16c", "bmi", "bmi2"),
    "generic": (),
}
_CPUS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "generic": "x86-64"}


@dataclass(frozen=True)
class Target:
    """A machine as the compiler sees it.

    triple, cpu, features: LLVM's names. vector_bytes: width of a full vector register. registers: how many of them
    there are. fma: one instruction multiplies and adds. rounding: one instruction rounds a float to an integer value.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fma: bool
    rounding: bool

    @property
    def x86(self) -> bool:
        """An x86-64 machine."""
        return self.triple.startswith(("x86_64", "amd64"))

    @property
    def arm64(self) -> bool:
        """A 64-bit Arm machine."""
        return self.triple.startswith(("aarch64", "arm64"))


@functools.cache
def host() -> Target:
    """This machine, with everything it can do."""
    import llvmlite.binding as llvm

    try:
        flags = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on some systems: fall back to what every machine of the kind has
        return _target(llvm.get_process_triple(), "generic", "generic", "")
    triple = llvm.get_process_triple()
    level = next(level for level in LEVELS if all(flags.get(name, False) for name in _NEEDS[level]))
    return _target(triple, level, llvm.get_host_cpu_name(), flags.flatten(), sse41=flags.get("sse4.1", False))


def named(level: str) -> Target:
    """The target of a level, "avx512", "avx2" or "generic" (what every machine of this kind has).

    Raises ValueError for an unknown level, or one that this machine cannot run.
    """
    if level not in LEVELS:
        raise ValueError(f"target {level!r} is unknown; the targets are {', '.join(LEVELS)}")
    machine = host()
    if level not in available():
        runs = ", ".join(available())
        raise ValueError(f"target {level!r} does not run on this machine ({machine.cpu}); it runs {runs}")
    if level == available()[0]:
        return machine
    cpu = _CPUS[level] if machine.x86 else "generic"
    return _target(machine.triple, level, cpu, "", sse41=level != "generic")


def arm() -> Target:
    """64-bit Arm under Linux with what every such machine has (NEON), wherever this process runs.

    Objects can be made for it (`compile.object_code`); on a machine of another kind they cannot be called.
    """
    return _target("aarch64-unknown-linux-gnu", "generic", "generic", "+neon")


@functools.cache
def available() -> tuple[str, ...]:
    """The levels that this machine runs, widest first."""
    machine = host()
    if not machine.x86:
        return ("generic",)
    flags = {item[1:] for item in machine.features.split(",") if item.startswith("+")}
    return tuple(level for level in LEVELS if flags.issuperset(_NEEDS[level]))


def current() -> Target:
    """The target of `use`, else of the environment variable GLUONISH_CPU, else the host."""
    return _used.get() or _from_environment(os.environ.get("GLUONISH_CPU", ""))


@contextmanager
def use(target: Target) -> Iterator[Target]:
    """Kernels first used inside the `with` block are compiled for `target`."""
    token = _used.set(target)
    try:
        yield target
    finally:
        _used.reset(token)


_used: ContextVar[Target | None] = ContextVar("target", default=None)


@functools.cache
def _from_environment(level: str) -> Target:
    if not level:
        return host()
    try:
        return named(level)
    except ValueError as error:
        raise ValueError(f"GLUONISH_CPU: {error}") from None


def _target(triple: str, level: str, cpu: str, features: str, sse41: bool = False) -> Target:
    if triple.startswith(("aarch64", "arm64")):
        return Target(triple, cpu, features, vector_bytes=16, registers=32, fma=True, rounding=True)
    width = {"avx512": 64, "avx2": 32, "generic": 16}[level]
    wide = level != "generic"
    return Target(triple, cpu, features, width, 32 if level == "avx512" else 16, fma=wide, rounding=wide or sse41)
