//! The graph: tables that the link stage writes (wasmgraph/link/description_object.py) and their view
//! as Rust sees it.

use std::ffi::c_void;
use std::slice::from_raw_parts;

/// An element type; the names are numpy's, and NPY's code says how a file spells it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DType {
    pub name: &'static str,
    /// NPY's type code without the byte order, e.g. "f4". numpy knows neither bfloat16 nor what is
    /// narrower than float16 and int8; ml_dtypes, which adds them, writes them as bytes of "void".
    pub code: &'static str,
    pub nbytes: usize,
}

pub const fn dtype(name: &'static str, code: &'static str, nbytes: usize) -> DType {
    DType { name, code, nbytes }
}

/// By the number that a `Tensor` has; the order is that of wasmgraph.metadata.DTYPE_NBYTES.
static DTYPES: [DType; 23] = [
    dtype("bool", "b1", 1),
    dtype("int8", "i1", 1),
    dtype("int16", "i2", 2),
    dtype("int32", "i4", 4),
    dtype("int64", "i8", 8),
    dtype("uint8", "u1", 1),
    dtype("uint16", "u2", 2),
    dtype("uint32", "u4", 4),
    dtype("uint64", "u8", 8),
    dtype("float16", "f2", 2),
    dtype("bfloat16", "V2", 2),
    dtype("float32", "f4", 4),
    dtype("float64", "f8", 8),
    dtype("float8_e4m3fn", "V1", 1),
    dtype("float8_e4m3fnuz", "V1", 1),
    dtype("float8_e5m2", "V1", 1),
    dtype("float8_e5m2fnuz", "V1", 1),
    dtype("float8_e8m0fnu", "V1", 1),
    dtype("float4_e2m1fn", "V1", 1),
    dtype("int4", "V1", 1),
    dtype("uint4", "V1", 1),
    dtype("int2", "V1", 1),
    dtype("uint2", "V1", 1),
];

/// The name of a dtype by its number.
#[cfg(any(feature = "component", test))]
pub fn dtype_name(number: u8) -> &'static str {
    DTYPES
        .get(usize::from(number))
        .map_or("unknown", |dtype| dtype.name)
}

/// UTF-8 in the module's data.
#[repr(C)]
pub struct Text {
    start: *const u8,
    nbytes: usize,
}

impl Text {
    pub fn get(&self) -> &'static str {
        unsafe { std::str::from_utf8_unchecked(from_raw_parts(self.start, self.nbytes)) }
    }
}

/// An axis without a fixed extent.
#[repr(C)]
pub struct Axis {
    name: Text,
    most: u32,
}

impl Axis {
    pub fn name(&self) -> &'static str {
        self.name.get()
    }

    /// Its largest extent, if it has a bound.
    pub fn most(&self) -> Option<i64> {
        Some(self.most.into()).filter(|_| self.most != u32::MAX)
    }
}

/// An input or output of the graph.
#[repr(C)]
pub struct Tensor {
    name: Text,
    dtype: usize,
    dims: *const i64,
    rank: usize,
    /// Where its bytes lie: C order, little-endian. Null where the shape is not known.
    pub address: *mut u8,
}

impl Tensor {
    /// The ONNX name.
    pub fn name(&self) -> &'static str {
        self.name.get()
    }

    pub fn dtype(&self) -> DType {
        DTYPES[self.dtype]
    }

    /// Its dtype's place among all.
    #[cfg(any(feature = "component", test))]
    pub fn dtype_number(&self) -> usize {
        self.dtype
    }

    /// The extent of every axis; -1 - k where only axis name k says that it is one with others.
    pub fn shape(&self) -> &'static [i64] {
        unsafe { from_raw_parts(self.dims, self.rank) }
    }
}

/// Which part of a tensor one sample of a batch has.
#[repr(C)]
pub struct Share {
    /// On which axis the samples lie one after the other; `NO_AXIS` where they all have the whole.
    pub axis: usize,
    /// The extent of that axis for one sample.
    pub extent: usize,
}

pub const NO_AXIS: usize = usize::MAX;

/// One kernel call, its addresses included.
#[repr(C)]
pub struct Step {
    call: unsafe extern "C" fn() -> i32,
    nodes: Text,
}

impl Step {
    /// The ONNX nodes that it computes.
    pub fn nodes(&self) -> &'static str {
        self.nodes.get()
    }

    /// 0, or the kernel's code where it fails.
    ///
    /// # Safety
    /// The kernels and addresses are those that the link stage checked and linked, and no step that
    /// reads or writes the same bytes runs at the same time.
    pub unsafe fn run(&self) -> i32 {
        (self.call)()
    }
}

/// `count` entries that lie one after the other.
#[repr(C)]
struct Table<T> {
    start: *const T,
    count: usize,
}

impl<T> Table<T> {
    fn get(&self) -> &'static [T] {
        // A table without entries may have the address 0 on a machine that is not WebAssembly.
        match self.count {
            0 => &[],
            count => unsafe { from_raw_parts(self.start, count) },
        }
    }
}

/// A tensor that the graph hands out.
pub struct Given {
    pub start: *mut u8,
    pub dims: Vec<i64>,
}

/// What runs a graph: its steps where every shape is known, for each sample of a batch where only
/// their number is not, or its nodes.
pub struct Engine {
    /// Where the bytes of input i go, which has these extents.
    pub declare: fn(usize, &[i64]) -> Result<*mut u8, String>,
    pub run: fn() -> Result<(), String>,
    /// Instead of `run`, where the inputs are not complete.
    pub skip: fn(),
    pub output: fn(usize) -> Result<Given, String>,
}

#[repr(C)]
struct Graph {
    /// An `Engine`, which is Rust's own.
    engine: *const c_void,
    axes: Table<Axis>,
    inputs: Table<Tensor>,
    outputs: Table<Tensor>,
    steps: Table<Step>,
    #[cfg_attr(not(feature = "threads"), allow(dead_code))]
    stages: Table<usize>,
    /// Of the inputs, then of the outputs; empty where the graph is not for one sample of a batch.
    shares: Table<Share>,
}

#[cfg(target_os = "wasi")]
extern "C" {
    #[link_name = "wasmgraph_description"]
    static GRAPH: Graph;
}

#[cfg(not(target_os = "wasi"))]
use empty::GRAPH;

/// A graph without anything, so that `cargo test` has one.
#[cfg(not(target_os = "wasi"))]
mod empty {
    use super::{Engine, Graph, Table};
    use std::ffi::c_void;
    use std::ptr::null;

    impl<T> Table<T> {
        const EMPTY: Table<T> = Table {
            start: null(),
            count: 0,
        };
    }

    unsafe impl Sync for Graph {}

    pub static GRAPH: Graph = Graph {
        engine: &crate::schedule::wasmgraph_static as *const Engine as *const c_void,
        axes: Table::EMPTY,
        inputs: Table::EMPTY,
        outputs: Table::EMPTY,
        steps: Table::EMPTY,
        stages: Table::EMPTY,
        shares: Table::EMPTY,
    };
}

#[allow(unused_unsafe)] // only a graph that is linked is one to be unsafe about
pub fn engine() -> &'static Engine {
    unsafe { &*GRAPH.engine.cast::<Engine>() }
}

/// The axes that are not fixed.
#[allow(unused_unsafe)]
pub fn axes() -> &'static [Axis] {
    unsafe { GRAPH.axes.get() }
}

#[allow(unused_unsafe)]
pub fn inputs() -> &'static [Tensor] {
    unsafe { GRAPH.inputs.get() }
}

#[allow(unused_unsafe)]
pub fn outputs() -> &'static [Tensor] {
    unsafe { GRAPH.outputs.get() }
}

#[allow(unused_unsafe)]
pub fn steps() -> &'static [Step] {
    unsafe { GRAPH.steps.get() }
}

/// The first step of every stage: the steps of one stage may run at the same time.
#[cfg(feature = "threads")]
#[allow(unused_unsafe)]
pub fn stages() -> &'static [usize] {
    unsafe { GRAPH.stages.get() }
}

/// What one sample has of every input and every output.
#[allow(unused_unsafe)]
pub fn shares() -> (&'static [Share], &'static [Share]) {
    unsafe { GRAPH.shares.get() }.split_at(inputs().len())
}
