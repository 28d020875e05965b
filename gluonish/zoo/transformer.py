"""Transformers: the layer that BERT, GPT-2 and ViT are stacks of.

Deliberately not here: decoders that look at an encoder's result, relative positions.
"""

from __future__ import annotations

from typing import Any

from gluonish.block import nn
from gluonish.nd import NDArray


class TransformerCell(nn.HybridBlock):
    """Self-attention and a feed-forward network, each added to its input and normalised.

    hidden: units inside the feed-forward network. pre_norm: normalise what goes into each part, as GPT-2 and ViT do,
    else each sum, as BERT does. activation: of the feed-forward network. dropout: of what each part gives.
    attention_dropout: of attention weights, which is slower. epsilon: of both norms.
    mask, cache and position: as `nn.MultiHeadAttention` has them.

    Shapes: (N, T, units) -> the same.
    Source: Vaswani et al., "Attention is all you need", 2017.
    """

    def __init__(
        self,
        units: int,
        num_heads: int,
        hidden: int,
        pre_norm: bool = False,
        causal: bool = False,
        activation: str = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        epsilon: float = 1e-5,
    ) -> None:
        self.pre_norm = pre_norm
        self.attention = nn.MultiHeadAttention(units, num_heads, True, attention_dropout, causal, in_units=units)
        self.attention_norm = nn.LayerNorm(epsilon=epsilon, in_channels=units)
        self.ffn = nn.HybridSequential(
            nn.Dense(hidden, activation, flatten=False, in_units=units),
            nn.Dense(units, flatten=False, in_units=hidden),
        )
        self.ffn_norm = nn.LayerNorm(epsilon=epsilon, in_channels=units)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: NDArray, mask: NDArray | None = None, cache: Any = None, position: Any = None) -> NDArray:
        """See the class."""
        how: dict[str, Any] = {"mask": mask, "cache": cache, "position": position}
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), **how))
            return x + self.dropout(self.ffn(self.ffn_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attention(x, **how)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))
