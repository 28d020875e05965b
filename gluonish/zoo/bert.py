"""BERT and MiniLM: encoders of texts; what makes one vector of a text, and scores of classes.

Deliberately not here: tokenizers, and the heads of pretraining.
"""

from __future__ import annotations

from typing import Any

from gluonish import nd
from gluonish.block import nn
from gluonish.nd import NDArray
from gluonish.nd.errors import user_line
from gluonish.zoo.transformer import TransformerCell


class Bert(nn.HybridBlock):
    """A vector for each token of a text.

    vocabulary: how many tokens there are. length: of the longest text. types: kinds of text (a question and its
    answer). dropout, attention_dropout, epsilon: as `TransformerCell` has them.
    mask: bool (N, T), True for tokens, False for padding, which changes no other token's vector. kinds: each token's
    kind, 0 unless given.

    Shapes: tokens (N, T), mask (N, T), kinds (N, T) -> (N, T, units).
    Raises: ValueError for texts that are too long, IndexError for unknown tokens or kinds.
    Source: Devlin et al., "BERT: pre-training of deep bidirectional transformers", NAACL 2019.
    """

    def __init__(
        self,
        vocabulary: int = 30522,
        units: int = 768,
        layers: int = 12,
        num_heads: int = 12,
        hidden: int = 0,
        length: int = 512,
        types: int = 2,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        epsilon: float = 1e-12,
    ) -> None:
        self.length = length
        self.word = nn.Embedding(vocabulary, units)
        self.position = nn.Embedding(length, units)
        self.kind = nn.Embedding(types, units)
        self.norm = nn.LayerNorm(epsilon=epsilon, in_channels=units)
        self.dropout = nn.Dropout(dropout)
        options: dict[str, Any] = {"dropout": dropout, "attention_dropout": attention_dropout, "epsilon": epsilon}
        self.cells = [TransformerCell(units, num_heads, hidden or 4 * units, **options) for _ in range(layers)]

    def forward(self, tokens: NDArray, mask: NDArray | None = None, kinds: NDArray | None = None) -> NDArray:
        """See the class."""
        count = tokens.shape[1]
        if count > self.length:
            raise ValueError(
                f"Bert: a text has {int(count)} tokens, it knows positions for {self.length}; cut the text, or make "
                f"the net with length={int(count)} ({user_line()})"
            )
        x = self.word(tokens) + self.position.weight[:count]
        x = x + (self.kind.weight[0] if kinds is None else self.kind(kinds))
        x = self.dropout(self.norm(x))
        for cell in self.cells:
            x = cell(x, mask)
        return x


class SentenceEncoder(nn.HybridBlock):
    """A vector of length 1 for each text: the mean of its tokens' vectors. Texts of like meaning have a large product.

    Shapes: tokens (N, T), mask (N, T) -> (N, units).

    >>> from gluonish import nd, zoo
    >>> net = zoo.SentenceEncoder(zoo.get_model("bert", vocabulary=50, units=16, layers=1, num_heads=2))
    >>> net.initialize("xavier")
    >>> vectors = net(nd.array([[3, 1, 4], [1, 5, 0]]), nd.array([[True] * 3, [True, True, False]]))
    >>> nd.matmul(vectors, vectors.T).shape
    (2, 2)

    Source: Reimers & Gurevych, "Sentence-BERT", EMNLP 2019.
    """

    def __init__(self, features: Bert) -> None:
        self.features = features

    def forward(self, tokens: NDArray, mask: NDArray | None = None) -> NDArray:
        """See the class."""
        x = self.features(tokens, mask)
        if mask is not None:
            x = x * mask.reshape((*mask.shape, 1)).astype(x.dtype)
        total = x.sum(1)  # (N, units); a mean but for its length, which is to be 1
        return total / nd.maximum(nd.sqrt((total * total).sum(-1, keepdims=True)), 1e-12)


class BertClassifier(nn.HybridBlock):
    """Scores of classes from the vector of the first token: `features`, `pooler` and `output` are attributes that may
    be used alone or replaced. Arguments and shapes are those of `Bert`, the result is (N, classes)."""

    def __init__(self, features: Bert, classes: int, dropout: float = 0.1) -> None:
        units = features.word.output_dim
        self.features = features
        self.pooler = nn.Dense(units, "tanh", in_units=units)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Dense(classes, in_units=units)

    def forward(self, tokens: NDArray, mask: NDArray | None = None, kinds: NDArray | None = None) -> NDArray:
        """See the class."""
        first = self.features(tokens, mask, kinds)[:, 0]  # (N, units)
        return self.output(self.dropout(self.pooler(first)))


def bert(classes: int | None = None, **options: Any) -> nn.HybridBlock:
    """BERT of any configuration, by default the "base" one of 109 million weights; with `classes` a classifier.
    options: those of `Bert`. No pretrained weights are loaded."""
    features = Bert(**options)
    return features if classes is None else BertClassifier(features, classes, options.get("dropout", 0.1))


def minilm_l6_384(classes: int | None = None, **options: Any) -> nn.HybridBlock:
    """MiniLM: BERT with 6 layers of 384 units, 22.6 million weights; for vectors of texts, put it into a
    `SentenceEncoder`. No pretrained weights are loaded.

    Source: Wang et al., "MiniLM: deep self-attention distillation", NeurIPS 2020.
    """
    return bert(classes, **{"units": 384, "layers": 6, **options})
