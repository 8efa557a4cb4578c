"""Kernels for extents that are known at run time only, written in wasm instructions.

The executor's operators (toolchain/executor/src/dynamic/ops) call them: `panels` for matrix
products, `taps` for depthwise convolutions, `strips` for chains of element-wise operators.
"""
