//! Matrix products by panels: packed blocks of 16, 8 or 4 columns.
//!
//! A packed matrix has its panels one after the other. All are 16 columns wide, but those at its end,
//! which together have the rest rounded up to whole vectors.

use super::kernels::{wgk_product_16, wgk_product_4, wgk_product_8};
use crate::dynamic::call::{room, Failure};
use crate::dynamic::value::Tensor;
use std::arch::wasm32::{f32x4_add, f32x4_extract_lane, f32x4_mul, f32x4_splat, v128, v128_load};

/// Bytes of the left factor that are multiplied with all panels before the next ones: they stay in
/// the second-level cache.
const CACHE_NBYTES: usize = 192 * 1024;

/// Floats behind what is packed that copies of whole vectors may write.
pub const SLACK: usize = 16;

/// The width of the panel that begins at a column.
pub fn width_at(column: usize, columns: usize) -> usize {
    match columns - column {
        0..=4 => 4,
        5..=8 => 8,
        9..=12 => 8,
        _ => 16,
    }
}

/// Columns rounded up to whole vectors.
pub fn packed_columns(columns: usize) -> usize {
    (columns + 3) & !3
}

/// What the sums of a product begin with.
#[derive(Clone, Copy)]
pub struct Start {
    place: *const f32,
    row: usize,
    step: usize,
}

static ZEROS: [f32; 4] = [0.0; 4];

impl Start {
    pub fn zero() -> Start {
        Start {
            place: ZEROS.as_ptr(),
            row: 0,
            step: 0,
        }
    }

    /// One number per row, four times each.
    pub fn per_row(spread: &[f32]) -> Start {
        Start {
            place: spread.as_ptr(),
            row: 16,
            step: 0,
        }
    }

    /// One number per column; vectors that begin among them are read whole.
    pub fn per_column(numbers: &[f32]) -> Start {
        Start {
            place: numbers.as_ptr(),
            row: 0,
            step: 16,
        }
    }

    /// What stands at the rows of a matrix that lie `step` floats apart.
    pub fn rows(place: *const f32, step: usize) -> Start {
        Start {
            place,
            row: 4 * step,
            step: 16,
        }
    }

    unsafe fn at(self, row: usize, column: usize) -> Start {
        let offset = self.row * row + self.step * (column / 4);
        Start {
            place: self.place.cast::<u8>().add(offset).cast(),
            ..self
        }
    }
}

/// The left factor and the result: addresses, and floats between rows.
#[derive(Clone, Copy)]
pub struct Rows {
    pub a: *const f32,
    pub a_row: usize,
    pub out: *mut f32,
    pub out_row: usize,
    pub count: usize,
    pub depth: usize,
}

/// out = start + a times the packed matrix.
///
/// # Safety
/// The pointers lead to as many elements as the extents say.
pub unsafe fn multiply(
    rows: Rows,
    packed: *const f32,
    columns: usize,
    start: Start,
) -> Result<(), Failure> {
    multiply_panels(rows, columns, start, |column, width, rows, start| {
        panel(width, rows, packed.add(column * rows.depth), start);
    })
}

/// The same where `multiply_one` multiplies with one panel, by its first column and its width.
///
/// # Safety
/// As for `multiply`.
pub unsafe fn multiply_panels(
    rows: Rows,
    columns: usize,
    start: Start,
    multiply_one: impl Fn(usize, usize, Rows, Start),
) -> Result<(), Failure> {
    let block = (CACHE_NBYTES / 4 / rows.depth.max(1)).max(24);
    let mut edge: Option<Tensor> = None;
    for first in (0..rows.count).step_by(block) {
        let part = Rows {
            a: rows.a.add(first * rows.a_row),
            out: rows.out.add(first * rows.out_row),
            count: block.min(rows.count - first),
            ..rows
        };
        let mut column = 0;
        while column < columns {
            let width = width_at(column, columns);
            let start = start.at(first, column);
            let left = columns - column;
            if left >= width {
                let out = part.out.add(column);
                multiply_one(column, width, Rows { out, ..part }, start);
            } else {
                // Its last columns are none: they are left out when it is copied.
                let edge = match &mut edge {
                    Some(edge) => edge,
                    none => none.insert(room(vec![part.count * 16], 4)?),
                };
                let out = edge.items_mut::<f32>().as_mut_ptr();
                let out_row = width;
                let to_edge = Rows {
                    out,
                    out_row,
                    ..part
                };
                multiply_one(column, width, to_edge, start);
                for row in 0..part.count {
                    for c in 0..left {
                        *part.out.add(row * part.out_row + column + c) = *out.add(row * width + c);
                    }
                }
            }
            column += width;
        }
    }
    Ok(())
}

/// out = start + rows times one panel.
///
/// # Safety
/// As for `multiply`, with as many columns as the panel is wide.
pub unsafe fn panel(width: usize, rows: Rows, b: *const f32, start: Start) {
    let kernel = match width {
        16 => wgk_product_16,
        8 => wgk_product_8,
        _ => wgk_product_4,
    };
    kernel(
        rows.a,
        4 * rows.a_row,
        b,
        rows.out,
        4 * rows.out_row,
        start.place,
        start.row,
        start.step,
        rows.count,
        rows.depth,
    );
}

/// Packs a matrix whose rows lie `step` floats apart; whole vectors of it are read.
///
/// # Safety
/// `to` has room for the packed matrix and `SLACK`.
pub unsafe fn pack(from: *const f32, step: usize, depth: usize, columns: usize, to: *mut f32) {
    let mut column = 0;
    while column < columns {
        let width = width_at(column, columns);
        let (mut source, mut target) = (from.add(column), to.add(column * depth));
        for _ in 0..depth {
            for vector in (0..width).step_by(4) {
                let four = source.add(vector).cast::<v128>().read_unaligned();
                target.add(vector).cast::<v128>().write_unaligned(four);
            }
            source = source.add(step);
            target = target.add(width);
        }
        column += width;
    }
}

/// out\[row\] = start\[row\] + the sum of the products of a row with `x`.
///
/// # Safety
/// `rows` is as for `multiply`, with one column; `x` has its depth.
pub unsafe fn multiply_vector(rows: Rows, x: *const f32, start: impl Fn(usize) -> f32) {
    let depth = rows.depth & !3;
    let mut row = 0;
    while row < rows.count {
        let many = (rows.count - row).min(4);
        let at = |i: usize| rows.a.add((row + i.min(many - 1)) * rows.a_row);
        let (a, b, c, d) = (at(0), at(1), at(2), at(3));
        let zero = f32x4_splat(0.0);
        let (mut p, mut q, mut r, mut s) = (zero, zero, zero, zero);
        for k in (0..depth).step_by(4) {
            let x = v128_load(x.add(k).cast());
            p = f32x4_add(p, f32x4_mul(x, v128_load(a.add(k).cast())));
            q = f32x4_add(q, f32x4_mul(x, v128_load(b.add(k).cast())));
            r = f32x4_add(r, f32x4_mul(x, v128_load(c.add(k).cast())));
            s = f32x4_add(s, f32x4_mul(x, v128_load(d.add(k).cast())));
        }
        for (i, sums) in [p, q, r, s].into_iter().enumerate().take(many) {
            let mut total = (f32x4_extract_lane::<0>(sums) + f32x4_extract_lane::<1>(sums))
                + (f32x4_extract_lane::<2>(sums) + f32x4_extract_lane::<3>(sums));
            for k in depth..rows.depth {
                total += *at(i).add(k) * *x.add(k);
            }
            *rows.out.add((row + i) * rows.out_row) = start(row + i) + total;
        }
        row += many;
    }
}
