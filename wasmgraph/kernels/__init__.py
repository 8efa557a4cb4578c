"""The kernels: one module per family, each a frozen specification that assembles itself.

A specification holds everything that is known at compile time (extents, strides, fused operators),
so two steps with equal specifications share one kernel. Its `assemble(name)` returns a wasm
function whose parameters are the byte addresses of its operands, in order, then of its outputs.
"""
