"""block: what users write models with: Blocks, Parameters, layers, losses, training."""

from gluonish.block.block import Block
from gluonish.block.constant import Constant
from gluonish.block.hybrid_block import HybridBlock
from gluonish.block.parameter import NotInitialized, Parameter
from gluonish.block.parameter_dict import ParameterDict
from gluonish.block.symbol_block import SymbolBlock
from gluonish.block.trainer import Trainer

__all__ = ["Block", "Constant", "HybridBlock", "NotInitialized", "Parameter", "ParameterDict", "SymbolBlock", "Trainer"]
