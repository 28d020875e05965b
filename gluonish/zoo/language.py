"""Language models of recurrent layers: scores of the next word at every place of a text.

Deliberately not here: transformers.
"""

from __future__ import annotations

from typing import Any

from gluonish.block import nn, rnn
from gluonish.nd import NDArray


class LSTMLanguageModel(nn.HybridBlock):
    """Words become vectors, LSTM layers read them, a dense layer makes scores of all words.

    classes: words that there are. units: of the vectors and of each layer. layers: of the LSTM. dropout: share of
    vectors, of outputs between layers, and of what the dense layer reads, that is left out in train mode.

    `model(words)` gives scores; `model(words, states)`, with `model.begin_state(N)` or what the last call gave, gives
    (scores, states), so that a text can be read piece after piece.

    Shapes: words (T, N), whole numbers -> (T, N, classes); states [(layers, N, units)] * 2.
    Source: W. Zaremba, I. Sutskever, O. Vinyals, Recurrent neural network regularization (2014).
    """

    def __init__(self, classes: int, units: int = 200, layers: int = 2, dropout: float = 0.0) -> None:
        self.embedding = nn.Embedding(classes, units)
        self.dropout = nn.Dropout(dropout)
        self.lstm = rnn.LSTM(units, layers, dropout=dropout, input_size=units)
        self.output = nn.Dense(classes, flatten=False, in_units=units)

    def begin_state(self, batch_size: int) -> list[NDArray]:
        """States to begin a text with."""
        return self.lstm.begin_state(batch_size)

    def forward(self, words: NDArray, states: Any = None) -> Any:
        """See the class."""
        vectors = self.dropout(self.embedding(words))
        if states is None:
            return self.output(self.dropout(self.lstm(vectors)))
        outputs, states = self.lstm(vectors, states)
        return self.output(self.dropout(outputs)), states


def lstm_lm(classes: int = 10000, **options: Any) -> LSTMLanguageModel:
    """The small model of Zaremba et al.: 2 layers of 200 units; options: those of LSTMLanguageModel."""
    return LSTMLanguageModel(classes, **options)
