"""GPT-2: a decoder that writes texts token by token."""

from __future__ import annotations

import numpy as np

from gluonish import nd
from gluonish.block import nn
from gluonish.block.nn.attention import Cache
from gluonish.nd import NDArray
from gluonish.nd.errors import shape_text, user_line
from gluonish.zoo.transformer import TransformerCell


class GPT2(nn.HybridBlock):
    """Scores of the token that follows each token.

    vocabulary: how many tokens there are. length: of the longest text. dropout: as `TransformerCell` has it. The scores
    come from the product with the tokens' own vectors: `word.weight` is used twice.

    Decoding: `cache = net.new_cache(batch, capacity)`, then `net(tokens, cache, position)` with position an array of
    one integer, the number of tokens that the cache holds. It gives scores for what follows the last token only, and
    writes keys and values into the cache, so that the next call needs the new tokens alone. `generate` does that.

    Shapes: tokens (N, T) -> (N, T, vocabulary); with a cache (N, 1, vocabulary).
    Raises: IndexError for unknown tokens and for positions beyond the length or the cache.
    Source: Radford et al., "Language models are unsupervised multitask learners", 2019.
    """

    def __init__(
        self,
        vocabulary: int = 50257,
        units: int = 768,
        layers: int = 12,
        num_heads: int = 12,
        hidden: int = 0,
        length: int = 1024,
        dropout: float = 0.1,
        epsilon: float = 1e-5,
    ) -> None:
        self.length = length
        self.word = nn.Embedding(vocabulary, units)
        self.position = nn.Embedding(length, units)
        self.dropout = nn.Dropout(dropout)
        self.cells = [
            TransformerCell(
                units, num_heads, hidden or 4 * units, True, True, "gelu_tanh", dropout=dropout, epsilon=epsilon
            )
            for _ in range(layers)
        ]
        self.norm = nn.LayerNorm(epsilon=epsilon, in_channels=units)

    def forward(self, tokens: NDArray, cache: list[Cache] | None = None, position: NDArray | None = None) -> NDArray:
        """See the class."""
        places = nd.arange(tokens.shape[1])
        x = self.word(tokens) + self.position(places if position is None else places + position)
        x = self.dropout(x)
        for i, cell in enumerate(self.cells):
            x = cell(x) if cache is None else cell(x, cache=cache[i], position=position)
        if cache is not None:
            x = x[:, tokens.shape[1] - 1 :]
        return nd.matmul(self.norm(x), self.word.weight.T)

    def new_cache(self, batch: int, capacity: int) -> list[Cache]:
        """An empty cache of all layers for texts of at most `capacity` tokens."""
        return [cell.attention.new_cache(batch, capacity) for cell in self.cells]

    def generate(
        self, tokens: NDArray, count: int, temperature: float = 0.0, top_k: int = 0, cache: list[Cache] | None = None
    ) -> NDArray:
        """The texts that begin with `tokens`, with `count` more tokens each.

        temperature: 0 takes the most likely token each time; above, tokens are drawn (seeded by `gl.random.seed`), the
        likely ones less favoured the higher it is. top_k: draw from so many of the most likely ones; 0: from all.
        cache: memory to work in, from `new_cache`; made for this call unless given. Hybridize the net first.

        Shapes: tokens (N, T), T at least 1 -> (N, T + count).

        >>> from gluonish import nd, zoo
        >>> net = zoo.get_model("gpt2", vocabulary=50, units=16, layers=1, num_heads=2); net.initialize()
        >>> net.generate(nd.array([[3, 1, 4]]), 5).shape
        (1, 8)

        Raises: ValueError for tokens of another shape, an empty beginning, or a text too long for the net or the cache.
        """
        if tokens.ndim != 2:
            raise ValueError(f"generate: tokens must be (N, T), got {shape_text(tokens.shape)} ({user_line()})")
        batch, begun = tokens.shape
        total = begun + count
        cache = self.new_cache(batch, total) if cache is None else cache
        room = min(self.length, cache[0][0].shape[2])
        if begun < 1 or count < 0 or total > room:
            raise ValueError(
                f"generate: {begun} tokens and {count} more do not fit; there must be one to begin with, and there is "
                f"room for {room} ({user_line()})"
            )
        text = [tokens.asnumpy()]
        position = 0
        for _ in range(count):
            new = text[-1]
            scores = self(nd.array(new), cache, nd.array([position]))
            position += new.shape[1]
            text.append(_chosen(scores[:, 0], temperature, top_k).astype(new.dtype))
        return nd.array(np.concatenate(text, 1))


def _chosen(scores: NDArray, temperature: float, top_k: int) -> np.ndarray:
    """A token for each row of scores, (N, vocabulary) -> (N, 1)."""
    if temperature < 0 or top_k < 0:
        raise ValueError(
            f"generate: temperature and top_k must be at least 0, got {temperature!r} and {top_k!r} ({user_line()})"
        )
    if temperature == 0:
        return scores.argmax(-1, keepdims=True).asnumpy()
    values = scores.asnumpy() / np.float32(temperature)
    if 0 < top_k < values.shape[1]:
        least = np.partition(values, -top_k, axis=1)[:, -top_k, None]
        values = np.where(values < least, -np.inf, values)
    # the highest after noise -log(-log(u)) is a draw by softmax(values)
    noise = nd.random.uniform(1e-20, 1.0, shape=values.shape).asnumpy()
    return np.argmax(values - np.log(-np.log(noise)), axis=1, keepdims=True)


def gpt2(**options: int | float) -> GPT2:
    """GPT-2, by default the small one of 124 million weights. options: those of `GPT2`. No pretrained weights are
    loaded."""
    return GPT2(**options)  # type: ignore[arg-type]
