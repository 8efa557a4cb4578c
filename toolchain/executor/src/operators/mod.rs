//! The operator library: operators which are not hot, and which TVM lacks, has wrong or cannot
//! generate code for. The converters in wasmgraph/importer call them by name; the linker takes along
//! only those that a graph calls.
//!
//! An operator is a C function `wgo_NAME(words, inputs..., outputs...)`, compiled once per dtype
//! where its name ends in one. `words` are its parameters in the order that its documentation lists
//! them, read with `Words`. Tensors are dense in C order, and bool is a byte. Shapes were checked by
//! the compiler: only indices that are data are checked here. An operator answers `DONE` or
//! `OUT_OF_RANGE`. What memory it needs it allocates; where there is none left, it traps.

use number::Number;
pub use words::Words;

/// Exports an operator that is generic over one dtype, `T` in its signature, once per dtype:
/// `export!("name", function(x: *const T, out: *mut T), f32 i64)` defines `wgo_name_f32` and
/// `wgo_name_i64`.
macro_rules! export {
    ($name:literal, $function:ident $arguments:tt, $($dtype:ident)+) => {
        $(export!(one $name, $function $arguments, $dtype);)+
    };
    (one $name:literal, $function:ident($($argument:ident: $type:ty),*), $dtype:ident) => {
        const _: () = {
            type T = $dtype;
            #[export_name = concat!("wgo_", $name, "_", stringify!($dtype))]
            unsafe extern "C" fn operator(words: *const i32, $($argument: $type),*) -> i32 {
                $function::<T>($crate::operators::Words::new(words), $($argument),*)
            }
        };
    };
}

pub mod axes;
pub mod binary;
mod columns;
mod labels;
mod linear;
mod narrow;
pub mod number;
mod pad;
mod pooling;
mod regions;
mod resample;
pub mod scatter;
mod scores;
mod spectra;
mod svm;
mod trees;
pub mod words;

/// What an operator answers where all is well.
pub const DONE: i32 = 0;

/// What it answers where an index lies outside of its tensor.
const OUT_OF_RANGE: i32 = 2;
