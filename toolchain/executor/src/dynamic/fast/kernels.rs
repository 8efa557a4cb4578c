//! The kernels of wasmgraph/dynamic/kernels, whose docstrings say what the parameters are.

extern "C" {
    pub fn wgk_product_16(
        a: *const f32,
        a_row: usize,
        b: *const f32,
        out: *mut f32,
        out_row: usize,
        start: *const f32,
        start_row: usize,
        start_step: usize,
        rows: usize,
        depth: usize,
    ) -> i32;
    pub fn wgk_product_8(
        a: *const f32,
        a_row: usize,
        b: *const f32,
        out: *mut f32,
        out_row: usize,
        start: *const f32,
        start_row: usize,
        start_step: usize,
        rows: usize,
        depth: usize,
    ) -> i32;
    pub fn wgk_product_4(
        a: *const f32,
        a_row: usize,
        b: *const f32,
        out: *mut f32,
        out_row: usize,
        start: *const f32,
        start_row: usize,
        start_step: usize,
        rows: usize,
        depth: usize,
    ) -> i32;
    pub fn wgk_taps(
        source: *const f32,
        source_row: usize,
        out: *mut f32,
        out_row: usize,
        rows: usize,
        columns: usize,
        count: usize,
        offsets: *const i32,
        weights: *const f32,
        start: *const f32,
    ) -> i32;
}

/// One element of a strip's table: an operand's address, and the bytes of 16 elements of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Operand {
    pub start: *const f32,
    pub step: usize,
}

/// What an operand that goes on evenly has for `step`.
pub const EVEN: usize = 64;

/// Operands that a chain has at most; wasmgraph/dynamic/fuse.py.
pub const MOST_OPERANDS: usize = 8;

/// The table that a strip reads.
#[repr(C)]
pub struct Table {
    pub out: *mut f32,
    pub operands: [Operand; MOST_OPERANDS],
}
