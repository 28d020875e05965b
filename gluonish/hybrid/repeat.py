"""Repeat: a call like one before, found by one compiled question.

Which variant a call needs, and its sizes, is found by `Variant.fits`. Most calls are like one of the last: arguments of
the same shapes and dtypes, and nothing that was looked at has changed. Then the answer is the same.

Deliberately not here: what is looked at (`guards.py`, `names.py`, `Variant.note`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gluonish.hybrid.numerics import setting
from gluonish.hybrid.variant import Variant
from gluonish.kernels.facts import Facts
from gluonish.nd.array import NDArray
from gluonish.nd.dispatch import state

COUNT = 4  # of one function
PATIENCE = 1000  # calls without a repeat, at most, before there is another one


class Repeat:
    """A call that was made. Another one has the same variant and sizes if training and recording are the same,
    `like(*arguments)` is true, and the answers to all questions are."""

    __slots__ = ("training", "recording", "variant", "sizes", "like", "questions", "facts", "uses")

    def __init__(self, variant: Variant, sizes: tuple[int, ...], facts: Facts, questions: list[Callable[[], bool]]):
        _, self.training, self.recording, _ = variant.mode
        self.variant, self.sizes, self.facts = variant, sizes, facts
        self.like = facts.question()
        self.questions = questions  # whose answers are not in memory
        self.uses = 0


class Repeats:
    """The last calls of one function that may come again, the newest first.

    Noting what a call looked at costs some microseconds. Where something changes at every call that is in vain, so the
    more often a repeat was of no use, the longer the next one is waited for.
    """

    def __init__(self) -> None:
        self.now: tuple[Repeat, ...] = ()
        self._wait = self._missed = 0

    def find(self, args: tuple[Any, ...]) -> Repeat | None:
        """The repeat of a call with these arguments."""
        training, recording = state.training, state.recording
        for repeat in self.now:
            if repeat.training is training and repeat.recording is recording and repeat.like(*args):
                for question in repeat.questions:
                    if not question():
                        break
                else:
                    repeat.uses += 1
                    return repeat
        return None

    def note(self, variant: Any, arrays: Sequence[NDArray], sizes: tuple[int, ...]) -> None:
        """A call of this kind was made, and none of the repeats knew it."""
        self._missed += 1
        if self._missed <= self._wait or type(variant) is not Variant or variant.instead is not None:
            return
        facts = Facts()
        facts.item(setting)
        for array, argument in zip(arrays, variant.arguments):
            facts.argument(array, argument.wanted)
        questions = variant.note(facts)
        if questions is None or variant.mode[3] is not setting[0] or variant.fits(arrays) != sizes:
            return  # the last two: another thread may be changing something
        old = [r for r in self.now if r.variant is variant and r.sizes == sizes]
        self._missed = 0
        self._wait = min(2 * self._wait + 1, PATIENCE) if any(r.uses < 8 for r in old) else 0
        others = [r for r in self.now if r not in old]
        self.now = (Repeat(variant, sizes, facts, questions), *others[: COUNT - 1])
