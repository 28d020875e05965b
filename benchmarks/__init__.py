"""benchmarks: gluonish side by side with other libraries, in one run: `python -m benchmarks`. README.md says how to read it.

Nothing is imported here: the numbers of threads must be set before any of the libraries is loaded.
"""
