//! float32 operators for graphs that may use 128-bit vectors: what takes most of a model's time.
//!
//! Their inner loops are kernels of the compiler's (wasmgraph/dynamic/kernels), which are linked with
//! every such graph; wasmgraph/dynamic/fuse.py turns nodes of `ops` into these. An operator may have a
//! chain of element-wise operators behind it, a kernel made for this graph, which is applied to its
//! result while that is in the cache.
//!
//! * `kernels`: the kernels that every graph has;
//! * `chain`: chains, on their own and behind a product;
//! * `panels`: matrix products; `product`: the operators made of them; `blocks`: those of weights that
//!   are stored as codes of a few bits;
//! * `image`: images as a window sees them; `conv`: convolutions; `pool`: pooling;
//! * `recurrent`: LSTM and GRU; `rows`: what is computed along an axis;
//! * `winograd`: those of 3x3 with fewer products; `transposed`: transposed ones.

mod blocks;
mod chain;
mod conv;
mod image;
mod kernels;
mod panels;
mod pool;
mod product;
mod recurrent;
mod rows;
mod transposed;
mod winograd;
