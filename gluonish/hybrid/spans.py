"""Spans: how far apart the nodes of groups lie in a graph, so that questions about their order end early."""

from __future__ import annotations


class Spans:
    """From which to which place in the graph groups extend, and how far one can come by reading from a place.

    A group reads nodes that stand before its last one, and with each of them the whole group that has it, which may
    extend further. Spans that were noted stay, so the answer may be too far, never too near. Prefix maxima in a tree.
    Source: P. M. Fenwick, A new data structure for cumulative frequency tables, 1994.
    """

    def __init__(self, count: int) -> None:
        self.furthest = [-1] * (count + 1)

    def note(self, first: int, last: int) -> None:
        """There is a group from `first` to `last`."""
        index = first + 1
        while index < len(self.furthest):
            self.furthest[index] = max(self.furthest[index], last)
            index += index & -index

    def reach(self, last: int) -> int:
        """The last place of anything that a group ending at `last` reads, directly or by way of others."""
        while True:
            found, index = last, last  # spans that begin before it
            while index > 0:
                found = max(found, self.furthest[index])
                index -= index & -index
            if found == last:
                return last
            last = found
