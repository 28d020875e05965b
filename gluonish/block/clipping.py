"""clip_global_norm: gradients scaled down together where they are too long, as recurrent networks need it.

Deliberately not here: limits for single elements, which are the optimizers' `clip_gradient`.
"""

from __future__ import annotations

from collections.abc import Iterable

from gluonish import nd
from gluonish.nd import NDArray, autograd
from gluonish.nd.dispatch import state
from gluonish.nd.errors import user_line


def clip_global_norm(arrays: Iterable[NDArray], max_norm: float) -> NDArray:
    """Scales arrays in place so that their common length is at most `max_norm`; gives the length there was.

    length = sqrt(sum of the squares of all elements); every array is multiplied by min(1, max_norm / length). A length
    that is NaN or Inf makes NaN or zeros of all of them: look at what is given. It may stand in a function that
    `gl.hybridize` compiles, between `backward` and `trainer.step`, with `[p.grad for p in parameters]`.

    Gradients of a sum over a batch, which `trainer.step(batch_size)` divides, have a norm that many times as large.

    Shapes: any -> ().

    >>> import gluonish as gl
    >>> g = gl.nd.array([3.0, 4.0]); gl.clip_global_norm([g], 1.0).item(), [round(x, 6) for x in g.tolist()]
    (5.0, [0.6, 0.8])

    Raises: ValueError if there are no arrays, or max_norm is not positive.
    Source: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural networks (2013).
    """
    given = list(arrays)
    if not given or not max_norm > 0:
        raise ValueError(
            f"clip_global_norm needs arrays and a positive max_norm, got {len(given)} arrays and {max_norm!r} "
            f"({user_line()})"
        )
    with autograd.pause(state.training):
        total = nd.sum(given[0] * given[0])
        for array in given[1:]:
            total = total + nd.sum(array * array)
        length = nd.sqrt(total)
        scale = nd.minimum(max_norm / length, 1.0)  # max_norm / 0 is Inf
        scaled = [array * scale for array in given]  # all before the first is assigned: two may be the same array
        for array, value in zip(given, scaled):
            array[:] = value
    return length
