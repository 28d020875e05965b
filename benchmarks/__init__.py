"""benchmarks: gluonish side by side with other libraries, in one run: `python -m benchmarks`. See README.md here.

Deliberately not here: imports, as every library's process reads this first.
"""
