"""rnn: recurrent layers, which run whole sequences through fast kernels, and cells, which do one step at a time."""

from gluonish.block.rnn.cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from gluonish.block.rnn.layers import GRU, LSTM, RNN

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell", "RecurrentCell"]
