"""`python -m wasmgraph` is the `wasmgraph` command."""

from wasmgraph.cli import main

main(prog_name="wasmgraph")
