"""nn: layers."""

from gluonish.block.block import Block
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.nn.activations import GELU, Activation, LeakyReLU
from gluonish.block.nn.attention import MultiHeadAttention
from gluonish.block.nn.containers import (
    Concatenate,
    HybridConcatenate,
    HybridLambda,
    HybridSequential,
    Identity,
    Lambda,
    Sequential,
)
from gluonish.block.nn.convolution import Conv1D, Conv1DTranspose, Conv2D, Conv2DTranspose, Conv3D
from gluonish.block.nn.dense import Dense, Dropout, Embedding, Flatten
from gluonish.block.nn.group_normalization import GroupNorm, InstanceNorm
from gluonish.block.nn.normalization import BatchNorm, LayerNorm, RMSNorm
from gluonish.block.nn.pooling import (
    AvgPool1D,
    AvgPool2D,
    AvgPool3D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalAvgPool3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
)
from gluonish.block.nn.resizing import ReflectionPad2D, UpSampling
from gluonish.block.symbol_block import SymbolBlock

__all__ = [
    "Activation",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "BatchNorm",
    "Block",
    "Concatenate",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GELU",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "GroupNorm",
    "HybridBlock",
    "HybridConcatenate",
    "HybridLambda",
    "HybridSequential",
    "Identity",
    "InstanceNorm",
    "Lambda",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MultiHeadAttention",
    "RMSNorm",
    "ReflectionPad2D",
    "Sequential",
    "SymbolBlock",
    "UpSampling",
]
