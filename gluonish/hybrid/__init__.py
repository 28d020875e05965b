"""hybrid: functions of arrays become compiled programs. It has never heard of Blocks.

trace -> graph -> passes -> steps -> program; `CompiledFunction` chooses among the traces of one function.
"""

from gluonish.hybrid.export import ImportedModel, export_model, import_model
from gluonish.hybrid.function import CompiledFunction, compile_function, hybridize
from gluonish.hybrid.numerics import precision

__all__ = [
    "CompiledFunction",
    "ImportedModel",
    "compile_function",
    "export_model",
    "hybridize",
    "import_model",
    "precision",
]
