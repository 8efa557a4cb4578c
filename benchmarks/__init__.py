"""The comparison with other systems: `make bench`, or `python -m benchmarks`. See README.md here.

No part of the package: it measures wasmgraph from outside, as a user has it.
"""
