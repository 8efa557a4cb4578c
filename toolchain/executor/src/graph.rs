//! What a generated graph consists of, and the generated graph itself (module `generated`).

/// An element type; the names are numpy's, and NPY's code says how a file spells it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DType {
    pub name: &'static str,
    /// NPY's type code without the byte order, e.g. "f4". numpy knows no bfloat16; ml_dtypes, which
    /// adds it, writes it as two bytes of "void".
    pub code: &'static str,
    pub nbytes: usize,
}

macro_rules! dtypes {
    ($($constant:ident = $name:literal $code:literal $nbytes:literal;)*) => {
        $(#[allow(dead_code)]
        pub const $constant: DType = DType { name: $name, code: $code, nbytes: $nbytes };)*
    };
}

dtypes! {
    BOOL = "bool" "b1" 1;
    INT8 = "int8" "i1" 1;
    INT16 = "int16" "i2" 2;
    INT32 = "int32" "i4" 4;
    INT64 = "int64" "i8" 8;
    UINT8 = "uint8" "u1" 1;
    UINT16 = "uint16" "u2" 2;
    UINT32 = "uint32" "u4" 4;
    UINT64 = "uint64" "u8" 8;
    FLOAT16 = "float16" "f2" 2;
    BFLOAT16 = "bfloat16" "V2" 2;
    FLOAT32 = "float32" "f4" 4;
    FLOAT64 = "float64" "f8" 8;
}

/// An input or output of the graph.
pub struct Tensor {
    /// The ONNX name.
    pub name: &'static str,
    pub dtype: DType,
    /// The extent of every axis.
    pub shape: &'static [i64],
    /// Where its bytes lie: C order, little-endian. A function because the address of a static that
    /// changes is no constant to Rust; it is one to the linker.
    pub address: fn() -> *mut u8,
}

impl Tensor {
    pub fn nbytes(&self) -> usize {
        self.shape.iter().product::<i64>() as usize * self.dtype.nbytes
    }
}

/// One step's kernel returned `code`, not 0.
pub struct Failure {
    pub step: usize,
    pub code: i32,
}

/// Runs every step in order, up to the first that fails.
///
/// # Safety
/// The generated addresses and kernels are those that were linked.
pub unsafe fn run() -> Result<(), Failure> {
    for number in 0..STEPS.len() {
        let code = step(number);
        if code != 0 {
            return Err(Failure { step: number, code });
        }
    }
    Ok(())
}

// Checked in is an empty graph, so that `cargo test` and `cargo clippy` have one. The link stage puts
// the real one in its place, in a copy of this crate, and brings the kernels and the three regions of
// memory (params, io, arena) as object files. Regions start at multiples of 64 bytes.
#[rustfmt::skip]
#[allow(clippy::match_single_binding)] // a graph may have no steps
#[path = "generated.rs"]
mod generated;

pub use generated::{step, INPUTS, OUTPUTS, STEPS};
