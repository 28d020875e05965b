"""nn: layers."""

from gluonish.block.block import Block
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.nn.activations import GELU, Activation, LeakyReLU
from gluonish.block.nn.containers import HybridLambda, HybridSequential, Identity, Lambda, Sequential
from gluonish.block.nn.convolution import Conv2D
from gluonish.block.nn.dense import Dense, Dropout, Embedding, Flatten
from gluonish.block.nn.normalization import BatchNorm, LayerNorm
from gluonish.block.nn.pooling import AvgPool2D, GlobalAvgPool2D, GlobalMaxPool2D, MaxPool2D
from gluonish.block.symbol_block import SymbolBlock

__all__ = [
    "Activation",
    "AvgPool2D",
    "BatchNorm",
    "Block",
    "Conv2D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GELU",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "HybridBlock",
    "HybridLambda",
    "HybridSequential",
    "Identity",
    "Lambda",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "Sequential",
    "SymbolBlock",
]
