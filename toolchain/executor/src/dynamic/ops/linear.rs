//! Matrix products.

use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::product::multiply;
use crate::dynamic::ops::shape::{broadcast, broadcast_steps, format_dims};
use crate::dynamic::value::Tensor;
use crate::operators::number::Number;

/// numpy's matmul.
fn matmul<T: Number + 'static>(call: &mut Call) -> Answer {
    let out = product::<T>(&call.tensor(0)?, &call.tensor(1)?)?;
    call.set_tensor(0, out);
    Ok(())
}

pub fn product<T: Number + 'static>(a: &Tensor, b: &Tensor) -> Result<Tensor, Failure> {
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
fn gemm<T: Number + Scaled + 'static>(call: &mut Call) -> Answer {
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
