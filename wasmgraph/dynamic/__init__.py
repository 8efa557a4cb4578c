"""Models whose shapes are known at run time only, as a list of nodes over slots.

Where every shape is known, `wasmgraph.optimise` makes a graph that is fused and planned, which is
several times as fast. What it cannot know (axes left open, control flow, sequences, sizes that
depend on data) comes here: `build` turns the model's nodes into calls of the executor's operators
(toolchain/executor/src/dynamic), `tables` writes them as the executor reads them.
"""
