//! The executor of one compiled graph, as a WASI preview 1 module that is library and command at once.
//!
//! wasmgraph's link stage writes `generated.rs` (tensors, addresses and one call per step), compiles
//! this crate with it and links the result with the graph's kernels and weights. Nothing here parses
//! a graph at run time. Read in this order:
//!
//! * `graph`: what a generated graph is made of, and the graph itself;
//! * `abi`: the functions a host calls, version 1 of the ABI;
//! * `command`: `_start`, that is `wasmtime run model.wasm < input.npy > output.npy`;
//! * `npy`: the file format of tensors;
//! * `workspace`: the C functions which the kernels themselves call;
//! * `error`: the text of the last error.

// Only WASI has the command's entry.
#![cfg_attr(not(target_os = "wasi"), allow(dead_code))]

mod abi;
mod command;
mod error;
mod graph;
mod npy;
mod workspace;
