//! The kernels of wasmgraph/dynamic/kernels, whose docstrings say what the parameters are.

use std::ffi::c_void;

use crate::dynamic::run::Strip;

/// Products that differ in how many columns a panel of `b` has.
macro_rules! products {
    ($($name:ident)+) => {
        extern "C" {
            $(pub fn $name(
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
            ) -> i32;)+
        }
    };
}

products!(wgk_product_16 wgk_product_8 wgk_product_4);

/// Decodes some rows of words; they differ in the bits of a code and in how wide a panel is.
pub type Decoding = unsafe extern "C" fn(
    scales: *const f32,
    zeros: *const f32,
    codes: *const u8,
    to: *mut f32,
    words: usize,
) -> i32;

macro_rules! decodings {
    ($($name:ident)+) => {
        extern "C" {
            $(pub fn $name(
                scales: *const f32,
                zeros: *const f32,
                codes: *const u8,
                to: *mut f32,
                words: usize,
            ) -> i32;)+
        }
    };
}

decodings!(wgk_decode_2_16 wgk_decode_2_8 wgk_decode_2_4);
decodings!(wgk_decode_4_16 wgk_decode_4_8 wgk_decode_4_4);
decodings!(wgk_decode_8_16 wgk_decode_8_8 wgk_decode_8_4);

extern "C" {
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
    pub fn wgk_exp_minus(table: *const c_void, count: usize) -> i32;
    pub fn wgk_lstm_gates(table: *const c_void, count: usize) -> i32;
    pub fn wgk_lstm_cell(table: *const c_void, count: usize) -> i32;
    pub fn wgk_lstm_state(table: *const c_void, count: usize) -> i32;
    pub fn wgk_gru_gates(table: *const c_void, count: usize) -> i32;
    pub fn wgk_gru_state(table: *const c_void, count: usize) -> i32;
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

impl Table {
    pub fn new() -> Table {
        let none = Operand {
            start: std::ptr::null(),
            step: 0,
        };
        Table {
            out: std::ptr::null_mut(),
            operands: [none; MOST_OPERANDS],
        }
    }

    /// # Safety
    /// The table has all operands of the chain, of so many elements.
    pub unsafe fn run(&self, strip: Strip, count: usize) {
        strip((self as *const Table).cast(), count);
    }
}

/// Runs a chain over operands that all go on evenly.
///
/// # Safety
/// As for `Table::run`.
pub unsafe fn run_strip(strip: Strip, out: *mut f32, operands: &[*mut f32], count: usize) {
    let mut table = Table::new();
    table.out = out;
    for (place, &start) in table.operands.iter_mut().zip(operands) {
        *place = Operand { start, step: EVEN };
    }
    table.run(strip, count);
}
