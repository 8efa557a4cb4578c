//! Graphs whose shapes are known at run time only: operators one after the other on tensors that carry
//! their shape.
//!
//! The link stage lists the nodes in tables (wasmgraph/dynamic/tables.py); each names an operator of
//! `ops`, its parameters, and the numbers of the slots that it reads and writes. A slot is freed after
//! its last reader. dtypes are known when a model is compiled, so an operator is linked for the dtypes
//! that occur and for no others.
//!
//! * `value`: tensors and sequences;
//! * `call`: what an operator sees;
//! * `run`: the order of the nodes;
//! * `ops`: the operators; `fast`: those of float32 that use 128-bit vectors.

mod call;
#[macro_use]
mod ops;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod fast;
mod run;
mod value;
