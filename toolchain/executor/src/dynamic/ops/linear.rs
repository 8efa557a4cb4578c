//! Matrix products.

use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::shape::{broadcast, broadcast_steps, format_dims};
use crate::dynamic::value::Tensor;
use crate::operators::number::Number;

/// Columns that one pass of the inner loop computes.
const STRIP: usize = 8;
/// Rows that share what it reads of the second factor.
const ROWS: usize = 4;

/// `out` (rows by columns) plus `a` (rows by depth) times `b` (depth by columns), dense.
pub fn multiply<T: Number>(a: &[T], b: &[T], out: &mut [T], depth: usize, columns: usize) {
    multiply_into(a, b, columns, out, columns, depth, columns);
}

/// The same where rows of `b` and of `out` lie `step_b` and `step` elements apart.
pub fn multiply_into<T: Number>(
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
    let whole = columns - columns % STRIP;
    for (group, a) in a.chunks(ROWS * depth).enumerate() {
        let out = &mut out[group * ROWS * step..];
        let rows = a.len() / depth;
        for strip in (0..whole).step_by(STRIP) {
            let b = &b[strip..];
            if rows == ROWS {
                tile::<T, ROWS>(a, b, step_b, &mut out[strip..], step, depth);
            } else {
                for row in 0..rows {
                    let out = &mut out[row * step + strip..];
                    tile::<T, 1>(&a[row * depth..], b, step_b, out, step, depth);
                }
            }
        }
        for row in 0..rows {
            let line = &a[row * depth..(row + 1) * depth];
            for column in whole..columns {
                let total = line.iter().enumerate().fold(T::ZERO, |total, (k, &x)| {
                    total.plus(x.times(b[k * step_b + column]))
                });
                let place = &mut out[row * step + column];
                *place = place.plus(total);
            }
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

/// numpy's matmul.
fn matmul<T: Number>(call: &mut Call) -> Answer {
    let out = product::<T>(&call.tensor(0)?, &call.tensor(1)?)?;
    call.set_tensor(0, out);
    Ok(())
}

pub fn product<T: Number>(a: &Tensor, b: &Tensor) -> Result<Tensor, Failure> {
    let (mut left, mut right) = (a.dims.clone(), b.dims.clone());
    let (is_row, is_column) = (left.len() == 1, right.len() == 1);
    if is_row {
        left.insert(0, 1);
    }
    if is_column {
        right.push(1);
    }
    let misfit = || {
        let (a, b) = (format_dims("", &a.dims), format_dims("", &b.dims));
        ["the shapes ", &a, " and ", &b, " cannot be multiplied"].concat()
    };
    if left.len() < 2 || right.len() < 2 {
        return Err(misfit());
    }
    let (rows, depth) = (left[left.len() - 2], left[left.len() - 1]);
    let columns = right[right.len() - 1];
    if right[right.len() - 2] != depth {
        return Err(misfit());
    }
    let outer_a = &left[..left.len() - 2];
    let outer_b = &right[..right.len() - 2];
    let outer = broadcast(outer_a, outer_b)?;
    let steps_a = broadcast_steps(outer_a, outer.len());
    let steps_b = broadcast_steps(outer_b, outer.len());
    let mut dims = outer.clone();
    if !is_row {
        dims.push(rows);
    }
    if !is_column {
        dims.push(columns);
    }
    let mut out = room(dims, std::mem::size_of::<T>())?;
    let target = out.items_mut::<T>();
    target.fill(T::ZERO);
    let (from_a, from_b) = (a.items::<T>(), b.items::<T>());
    // One large product where every batch has the same right factor.
    if steps_b.iter().all(|&step| step == 0) && outer_a == &outer[..] {
        multiply(from_a, from_b, target, depth, columns);
        return Ok(out);
    }
    for (i, part) in target.chunks_mut((rows * columns).max(1)).enumerate() {
        let (mut rest, mut at_a, mut at_b) = (i, 0, 0);
        for k in (0..outer.len()).rev() {
            at_a += rest % outer[k] * steps_a[k];
            at_b += rest % outer[k] * steps_b[k];
            rest /= outer[k];
        }
        let a = &from_a[at_a * rows * depth..(at_a + 1) * rows * depth];
        let b = &from_b[at_b * depth * columns..(at_b + 1) * depth * columns];
        multiply(a, b, part, depth, columns);
    }
    Ok(out)
}

/// Rows and columns of a matrix exchanged.
pub fn turned<T: Copy>(matrix: &Tensor) -> Result<Tensor, Failure> {
    let (rows, columns) = match matrix.dims[..] {
        [rows, columns] => (rows, columns),
        _ => return Err("its operands are not matrices".to_string()),
    };
    let mut out = room(vec![columns, rows], std::mem::size_of::<T>())?;
    let (from, to) = (matrix.items::<T>(), out.items_mut::<T>());
    for (c, line) in to.chunks_mut(rows.max(1)).enumerate() {
        for (r, place) in line.iter_mut().enumerate() {
            *place = from[r * columns + c];
        }
    }
    Ok(out)
}

/// Words: whether each factor is turned, alpha and beta as float32. Inputs: two matrices, and what
/// is added (may be left out).
fn gemm<T: Number + Scaled>(call: &mut Call) -> Answer {
    let (turn_a, turn_b) = (call.words.flag(), call.words.flag());
    let (alpha, beta) = (call.words.float(), call.words.float());
    let (mut a, mut b) = (call.tensor(0)?, call.tensor(1)?);
    if turn_a {
        a = turned::<T>(&a)?;
    }
    if turn_b {
        b = turned::<T>(&b)?;
    }
    let mut out = product::<T>(&a, &b)?;
    if alpha != 1.0 {
        let items = out.items_mut::<T>().iter_mut();
        items.for_each(|x| *x = x.scaled(alpha));
    }
    if call.has(2) {
        let c = call.tensor(2)?;
        out = match beta == 1.0 {
            true => super::binary::zip(&out, &c, T::plus)?,
            false => super::binary::zip(&out, &c, |x: T, c: T| x.plus(c.scaled(beta)))?,
        };
    }
    call.set_tensor(0, out);
    Ok(())
}

pub trait Scaled {
    fn scaled(self, factor: f32) -> Self;
}

macro_rules! scaled {
    ($($dtype:ident)+) => {
        $(impl Scaled for $dtype {
            fn scaled(self, factor: f32) -> Self {
                (self as f64 * f64::from(factor)) as $dtype
            }
        })+
    };
}

scaled!(f32 f64 i32 i64 u32 u64);

export!("matmul", matmul, f32 f64 i32 i64 u32 u64);
export!("gemm", gemm, f32 f64 i32 i64 u32 u64);

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
