//! The executor of one compiled graph, as a WASI preview 1 module that is library and command at once.
//!
//! It is compiled once. wasmgraph's link stage links it with the graph's kernels, its weights and its
//! description: tables of tensors and steps. Nothing here parses a graph at run time. Read in this
//! order:
//!
//! * `graph`: what a graph is made of, and the graph itself;
//! * `schedule`: the order of the steps; `pool`: the same with several threads;
//! * `batch`: graphs for one sample, which run once per sample of a batch;
//! * `abi`: the functions a host calls, version 1 of the ABI;
//! * `command`: `_start`, that is `wasmtime run model.wasm < input.npy > output.npy`;
//! * `component`: the functions of a component, instead of those of `abi` and `command`;
//! * `npy`: the file format of tensors;
//! * `workspace`: the C functions which the kernels themselves call;
//! * `dynamic`: graphs whose shapes are known at run time only;
//! * `operators`: operators that have no kernel of wasmgraph's own;
//! * `error`: the text of the last error.

// Only WASI has the command's entry.
#![cfg_attr(not(target_os = "wasi"), allow(dead_code))]

mod abi;
mod batch;
mod command;
#[cfg(any(feature = "component", test))]
mod component;
#[cfg(any(feature = "dynamic", test))]
mod dynamic;
mod error;
mod graph;
mod npy;
mod operators;
#[cfg(feature = "threads")]
mod pool;
mod schedule;
mod workspace;
