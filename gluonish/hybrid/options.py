"""Options: how a function is to be compiled, beside what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gluonish.nd.errors import user_line


@dataclass(frozen=True)
class Options:
    """What `hybridize` may be asked for.

    fallback: what cannot be traced, since Python needs values, runs step by step, and what it calls is compiled.
    verify: every new variant is compared with an eager run, and goes on eagerly if they differ. background: kernels are
    compiled in a thread, calls run eagerly until they are ready. remat: the backward computes most of the forward again
    instead of keeping it, so that training a chain of n layers holds about sqrt(n) of their results.
    """

    fallback: bool = False
    verify: bool = False
    background: bool = False
    remat: bool = False


PLAIN = Options()


def options_of(given: Mapping[str, Any]) -> Options:
    """Options from keyword arguments. Raises: TypeError for an unknown one."""
    known = {field.name for field in fields(Options)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise TypeError(
            f"hybridize: unknown flag {', '.join(unknown)}; there are {', '.join(sorted(known))} ({user_line()})"
        )
    return Options(**{name: bool(value) for name, value in given.items()})
