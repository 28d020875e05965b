"""How loops run: compiled kernels, the intrinsics they are written with, and the pool that runs them.

Importing this package loads neither numba nor llvmlite; its modules load them when a kernel is compiled or first run.
"""
