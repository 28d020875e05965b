"""hybrid: functions of arrays become compiled programs. It has never heard of Blocks.

trace -> graph -> passes -> steps -> program; `CompiledFunction` chooses among the traces of one function.
"""

from gluonish.hybrid.function import CompiledFunction, compile_function, hybridize

__all__ = ["CompiledFunction", "compile_function", "hybridize"]
