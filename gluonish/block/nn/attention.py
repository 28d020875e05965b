"""MultiHeadAttention, with a cache of keys and values for decoding."""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block.nn.dense import Dense
from gluonish.block.nn.layer import Layer, positive
from gluonish.block.tree import title
from gluonish.nd import NDArray
from gluonish.nd.dispatch import state
from gluonish.nd.errors import shape_text, user_line

Cache = tuple[NDArray, NDArray]


class MultiHeadAttention(Layer):
    """Attention in `num_heads` subspaces: output(concat over heads of softmax(q k^T / sqrt(D)) v).

    q, k, v are projections of query, key and value to `units` numbers, cut into heads of D = units / num_heads. Without
    a key the query attends to itself; without a value the key is the value. mask: bool, True where a query may look at
    a key, or floats to add to the scores; (N, S) holds for all queries and heads, else it broadcasts to (N, H, T, S).
    causal: no query sees later keys. dropout: of weights, in train mode (then the weights are in memory, which is
    slower). in_units: numbers of each input, found from the first batch if 0.

    Decoding: `cache = layer.new_cache(batch, capacity)`, then `out = layer(x, cache=cache, position=position)`, where
    `position`, an array of one integer, tells how many tokens the cache holds. Their keys and values are not computed
    again; those of x are written into the cache, in place. The cache has one shape from the first token to the last, so
    a hybridized layer is traced and compiled once for prompts and once for single tokens. No gradient flows through a
    cache: outside autograd.record() only.

    Shapes: query (N, T, I), key and value (N, S, I) -> (N, T, units); cache 2 of (N, num_heads, capacity, D).

    >>> from gluonish import nd, nn
    >>> layer = nn.MultiHeadAttention(8, 2, causal=True); layer.initialize()
    >>> layer(nd.ones((2, 5, 8))).shape
    (2, 5, 8)
    >>> cache = layer.new_cache(2, 16)
    >>> layer(nd.ones((2, 5, 8)), cache=cache, position=nd.array([0])).shape
    (2, 5, 8)
    >>> layer(nd.ones((2, 1, 8)), cache=cache, position=nd.array([5])).shape
    (2, 1, 8)

    Raises: ValueError for units that are no multiple of num_heads or inputs that do not fit, IndexError for a position
    beyond the cache.
    Source: Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(
        self,
        units: int,
        num_heads: int,
        use_bias: bool = True,
        dropout: float = 0.0,
        causal: bool = False,
        dtype: Any = "float32",
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        in_units: int = 0,
    ) -> None:
        self.units = positive("MultiHeadAttention", "units", units)
        self.num_heads = positive("MultiHeadAttention", "num_heads", num_heads)
        if units % num_heads:
            raise ValueError(f"MultiHeadAttention: {units} units do not divide into {num_heads} heads ({user_line()})")
        if not 0 <= dropout < 1:
            raise ValueError(f"MultiHeadAttention: dropout must be in [0, 1), got {dropout!r} ({user_line()})")
        self.dropout, self.causal = dropout, bool(causal)

        def dense(inputs: int) -> Dense:
            return Dense(units, None, use_bias, False, dtype, weight_initializer, bias_initializer, inputs)

        self.query, self.key, self.value, self.output = (dense(n) for n in (in_units, in_units, in_units, units))

    def forward(
        self,
        query: NDArray,
        key: NDArray | None = None,
        value: NDArray | None = None,
        mask: NDArray | None = None,
        cache: Cache | None = None,
        position: NDArray | None = None,
    ) -> NDArray:
        """See the class."""
        if query.ndim != 3:
            raise self.misfit(query)
        if cache is not None and key is not None:
            raise ValueError(
                f"{title(self)}: a cache holds the keys of the queries themselves, so no key ({user_line()})"
            )
        key = query if key is None else key
        q, k, v = self.query(query), self.key(key), self.value(key if value is None else value)
        q, k, v = (self._heads(x) for x in (q, k, v))
        if mask is not None and mask.ndim == 2:
            mask = mask.reshape((mask.shape[0], 1, 1, mask.shape[1]))
        causal = self.causal
        if cache is not None:
            seen = self._extend(cache, k, v, position)
            k, v = cache
            mask, causal = seen if mask is None else self._both(mask, seen), False
        out = self._attend(q, k, v, mask, causal)  # (N, H, T, D)
        return self.output(out.transpose((0, 2, 1, 3)).reshape((*query.shape[:2], self.units)))

    def new_cache(self, batch: int, capacity: int, dtype: Any = None) -> Cache:
        """An empty cache for sequences of at most `capacity` tokens."""
        shape = (batch, self.num_heads, capacity, self.units // self.num_heads)
        kind = dtype or self.query.weight.dtype
        return nd.zeros(shape, dtype=kind), nd.zeros(shape, dtype=kind)

    def _heads(self, x: NDArray) -> NDArray:
        """Shapes: (N, T, units) -> (N, H, T, D)."""
        shape = (*x.shape[:2], self.num_heads, self.units // self.num_heads)
        return x.reshape(shape).transpose((0, 2, 1, 3))

    def _attend(self, q: NDArray, k: NDArray, v: NDArray, mask: NDArray | None, causal: bool) -> Any:
        if not state.training or self.dropout == 0:
            return nd.attention(q, k, v, mask, causal)
        return nd.matmul(nd.dropout(nd.attention_weights(q, k, mask, causal), self.dropout), v)

    def _extend(self, cache: Cache, k: NDArray, v: NDArray, position: NDArray | None) -> NDArray:
        """Puts the new keys and values into the cache; gives which of it each query sees, (T, capacity)."""
        if not isinstance(position, NDArray) or position.dtype.kind not in "iu" or position.shape not in ((), (1,)):
            raise TypeError(
                f"{title(self)}: with a cache, position must be an array of one integer, as nd.array([0]) (a Python "
                f"number would be a new trace for each value), got {position!r:.60} ({user_line()})"
            )
        batch, heads, capacity, depth = cache[0].shape
        if cache[1].shape != cache[0].shape or (k.shape[0], *k.shape[1::2]) != (batch, heads, depth):
            raise ValueError(
                f"{title(self)}: the cache must be two arrays (N, num_heads, capacity, D) for keys of shape "
                f"{shape_text(k.shape)}, got {shape_text(cache[0].shape)} and {shape_text(cache[1].shape)} "
                f"({user_line()})"
            )
        for held, new in zip(cache, (k, v)):
            nd.write_rows(held, position, new)
        count = k.shape[2]
        last = position.reshape((1, 1)) + (nd.arange(count).reshape((count, 1)) if self.causal else count - 1)
        return nd.arange(capacity) <= last

    def _both(self, mask: NDArray, seen: NDArray) -> Any:
        """What both masks let through."""
        return nd.logical_and(mask, seen) if mask.dtype.kind == "b" else nd.where(seen, mask, -float("inf"))

    def reworded(self, error: Exception, args: tuple[Any, ...]) -> Exception:
        """Says which tokens the cache has no room for."""
        if not isinstance(error, IndexError):
            return error
        return IndexError(f"{title(self)}: the cache has no room for all tokens at this position: {error}")

    def _expects(self) -> str:
        return "queries (N, T, inputs)"

    def _describe(self) -> str:
        heads = f"{self.units} in {self.num_heads} heads"
        return heads + (", causal" if self.causal else "") + (f", dropout={self.dropout}" if self.dropout else "")
