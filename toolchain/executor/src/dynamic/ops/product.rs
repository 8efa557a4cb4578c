//! The inner loops of matrix products.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::dynamic::ops::binary::is_float32;
use crate::operators::number::Number;

/// Columns that one pass of the inner loop computes.
const STRIP: usize = 8;
/// Rows that share what it reads of the second factor.
const ROWS: usize = 4;

/// `out` (rows by columns) plus `a` (rows by depth) times `b` (depth by columns), dense.
pub fn multiply<T: Number + 'static>(
    a: &[T],
    b: &[T],
    out: &mut [T],
    depth: usize,
    columns: usize,
) {
    multiply_into(a, b, columns, out, columns, depth, columns);
}

/// The same where rows of `b` and of `out` lie `step_b` and `step` elements apart.
pub fn multiply_into<T: Number + 'static>(
    a: &[T],
    b: &[T],
    step_b: usize,
    out: &mut [T],
    step: usize,
    depth: usize,
    columns: usize,
) {
    if depth == 0 || columns == 0 {
        return;
    }
    let rows = a.len() / depth;
    assert!(b.len() >= (depth - 1) * step_b + columns);
    assert!(rows == 0 || out.len() >= (rows - 1) * step + columns);
    let mut done = 0;
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    if is_float32::<T>() {
        let (a, b) = (a.as_ptr().cast::<f32>(), b.as_ptr().cast::<f32>());
        let out = out.as_mut_ptr().cast::<f32>();
        let shape = vectors::Shape {
            rows,
            depth,
            step_b,
            step,
        };
        // The lengths were checked above.
        done = unsafe { vectors::multiply(a, b, out, &shape, columns) };
    }
    if done == 0 {
        done = columns - columns % STRIP;
        for (group, a) in a.chunks(ROWS * depth).enumerate() {
            let out = &mut out[group * ROWS * step..];
            for strip in (0..done).step_by(STRIP) {
                let (b, out) = (&b[strip..], &mut out[strip..]);
                if a.len() == ROWS * depth {
                    tile::<T, ROWS>(a, b, step_b, out, step, depth);
                } else {
                    for (row, a) in a.chunks_exact(depth).enumerate() {
                        tile::<T, 1>(a, b, step_b, &mut out[row * step..], step, depth);
                    }
                }
            }
        }
    }
    for (row, line) in a.chunks_exact(depth).enumerate() {
        for column in done..columns {
            let products = line.iter().enumerate();
            let total = products.fold(T::ZERO, |total, (k, &x)| {
                total.plus(x.times(b[k * step_b + column]))
            });
            let place = &mut out[row * step + column];
            *place = place.plus(total);
        }
    }
}

/// R rows by STRIP columns, in registers.
#[inline(always)]
fn tile<T: Number, const R: usize>(
    a: &[T],
    b: &[T],
    step_b: usize,
    out: &mut [T],
    step: usize,
    depth: usize,
) {
    let mut sums = [[T::ZERO; STRIP]; R];
    for k in 0..depth {
        let line = &b[k * step_b..k * step_b + STRIP];
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = a[r * depth + k];
            for (sum, &y) in sums.iter_mut().zip(line) {
                *sum = sum.plus(x.times(y));
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let target = out[r * step..r * step + STRIP].iter_mut();
        target.zip(sums).for_each(|(o, &sum)| *o = o.plus(sum));
    }
}

/// The same for float32 with 128-bit vectors, which the compiler does not find by itself.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod vectors {
    use std::arch::wasm32::{
        f32x4_add, f32x4_mul, f32x4_splat, v128, v128_load, v128_load32_splat, v128_store,
    };

    /// As `multiply_into` names them.
    pub struct Shape {
        pub rows: usize,
        pub depth: usize,
        pub step_b: usize,
        pub step: usize,
    }

    macro_rules! loaded {
        ($from:ident, [$($v:literal)+]) => {
            [$(v128_load($from.add(4 * $v).cast())),+]
        };
    }

    macro_rules! multiply_add {
        ($sums:ident, $r:literal, $x:ident, $line:ident, [$($v:literal)+]) => {
            $($sums[$r][$v] = f32x4_add($sums[$r][$v], f32x4_mul($x, $line[$v]));)+
        };
    }

    macro_rules! add_to {
        ($place:ident, $sums:ident, $r:literal, [$($v:literal)+]) => {
            $(
                let vector = $place.add(4 * $v).cast::<v128>();
                v128_store(vector, f32x4_add(v128_load(vector), $sums[$r][$v]));
            )+
        };
    }

    /// Rows by vectors, each with a register of its own: the compiler keeps sums in memory where
    /// these are loops.
    macro_rules! tile {
        ($name:ident, $rows:literal: [$($r:literal)+], $count:literal: $vectors:tt) => {
            unsafe fn $name(a: *const f32, b: *const f32, out: *mut f32, shape: &Shape) {
                let mut sums = [[f32x4_splat(0.0); $count]; $rows];
                for k in 0..shape.depth {
                    let from = b.add(k * shape.step_b);
                    let line = loaded!(from, $vectors);
                    $(
                        let x = v128_load32_splat(a.add($r * shape.depth + k).cast());
                        multiply_add!(sums, $r, x, line, $vectors);
                    )+
                }
                $(
                    let place = out.add($r * shape.step);
                    add_to!(place, sums, $r, $vectors);
                )+
            }
        };
    }

    tile!(four_wide, 4: [0 1 2 3], 2: [0 1]);
    tile!(four_narrow, 4: [0 1 2 3], 1: [0]);
    tile!(one_wide, 1: [0], 4: [0 1 2 3]);
    tile!(one_narrow, 1: [0], 1: [0]);

    type Tile = unsafe fn(*const f32, *const f32, *mut f32, &Shape);

    /// Answers how many columns are done: all but less than four.
    ///
    /// # Safety
    /// The factors and the result are as long as `multiply_into` has checked.
    pub unsafe fn multiply(
        a: *const f32,
        b: *const f32,
        out: *mut f32,
        shape: &Shape,
        columns: usize,
    ) -> usize {
        let mut row = 0;
        while row < shape.rows {
            let is_four = row + 4 <= shape.rows;
            let (wide, width, narrow): (Tile, usize, Tile) = match is_four {
                true => (four_wide, 8, four_narrow),
                false => (one_wide, 16, one_narrow),
            };
            let (a, out) = (a.add(row * shape.depth), out.add(row * shape.step));
            let mut column = 0;
            while column + 4 <= columns {
                if column + width <= columns {
                    wide(a, b.add(column), out.add(column), shape);
                    column += width;
                } else {
                    narrow(a, b.add(column), out.add(column), shape);
                    column += 4;
                }
            }
            row += if is_four { 4 } else { 1 };
        }
        columns & !3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_and_their_rest_make_the_whole_product() {
        for (rows, depth, columns) in [(5, 3, 17), (1, 1, 1), (8, 2, 16), (3, 0, 4)] {
            let a: Vec<i64> = (0..rows * depth).map(|i| i as i64 - 5).collect();
            let b: Vec<i64> = (0..depth * columns).map(|i| 3 - i as i64).collect();
            let mut out = vec![0; rows * columns];
            multiply(&a, &b, &mut out, depth, columns);
            for r in 0..rows {
                for c in 0..columns {
                    let sum: i64 = (0..depth)
                        .map(|k| a[r * depth + k] * b[k * columns + c])
                        .sum();
                    assert_eq!(out[r * columns + c], sum);
                }
            }
        }
    }
}
