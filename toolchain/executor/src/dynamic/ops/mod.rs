//! The operators of dynamic graphs, by family.
//!
//! An operator is a function `fn(&mut Call) -> Answer`, generic over the dtypes that it computes with
//! or, where it only moves elements, over an integer of their size. `export!` gives each use its
//! symbol `wgd_NAME_DTYPE`, which wasmgraph/dynamic/operators names.

macro_rules! export {
    ($name:literal, $function:path) => {
        const _: () = {
            #[export_name = concat!("wgd_", $name)]
            unsafe extern "C" fn operator(
                call: &mut $crate::dynamic::call::Call,
                reason: &mut $crate::dynamic::call::Failure,
            ) -> bool {
                $crate::dynamic::call::finish($function(call), reason)
            }
        };
    };
    ($name:literal, $function:ident, $($dtype:ident)+) => {
        $(
            const _: () = {
                #[export_name = concat!("wgd_", $name, "_", stringify!($dtype))]
                unsafe extern "C" fn operator(
                    call: &mut $crate::dynamic::call::Call,
                    reason: &mut $crate::dynamic::call::Failure,
                ) -> bool {
                    $crate::dynamic::call::finish($function::<$dtype>(call), reason)
                }
            };
        )+
    };
}

mod control;
mod shape;
