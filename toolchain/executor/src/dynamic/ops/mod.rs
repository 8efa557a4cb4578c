//! The operators of dynamic graphs, by family.
//!
//! An operator is a function `fn(&mut Call) -> Answer`, generic over the dtypes that it computes with
//! or, where it only moves elements, over an integer of their size. `export!` gives each use its
//! symbol `wgd_NAME_DTYPE`, which wasmgraph/dynamic/operators names.

macro_rules! export {
    ($name:literal, $function:path) => {
        export!(exact concat!("wgd_", $name), $function);
    };
    (exact $symbol:expr, $function:path) => {
        const _: () = {
            #[export_name = $symbol]
            unsafe extern "C" fn operator(
                call: *mut std::ffi::c_void,
                reason: *mut std::ffi::c_void,
            ) -> i32 {
                $crate::dynamic::call::answer(call, reason, $function)
            }
        };
    };
    ($name:literal, $function:ident, $($dtype:ident)+) => {
        $(
            const _: () = {
                #[export_name = concat!("wgd_", $name, "_", stringify!($dtype))]
                unsafe extern "C" fn operator(
                    call: *mut std::ffi::c_void,
                    reason: *mut std::ffi::c_void,
                ) -> i32 {
                    $crate::dynamic::call::answer(call, reason, $function::<$dtype>)
                }
            };
        )+
    };
}

mod binary;
mod cast;
mod control;
pub mod conv;
mod data;
mod detect;
mod einsum;
pub mod linear;
mod norm;
pub mod pool;
mod product;
mod quantise;
pub mod recurrent;
mod reduce;
mod resize;
mod scan;
pub mod select;
mod sequence;
pub mod shape;
mod space;
mod unary;
pub mod window;
