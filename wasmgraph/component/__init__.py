"""Graphs as WebAssembly components of the package `wasmgraph:inference` (toolchain/wit).

A component is made by linking the executor with the component's functions instead of the graph
ABI's (toolchain/executor/src/component.rs), sealing the module so that it imports nothing, and
writing the component around it. The module's bytes, mostly weights, are never turned into text.
"""
