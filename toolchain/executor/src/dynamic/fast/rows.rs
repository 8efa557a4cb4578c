//! What is computed along one axis: softmax and layer normalisation.

use super::kernels::{run_strip, wgk_exp_minus, Operand, Table, EVEN};
use crate::dynamic::call::{axis, room, Answer, Call, Failure};
use crate::dynamic::ops::select::around;
use crate::dynamic::ops::shape::{broadcast, broadcast_steps, gather_strided};
use crate::dynamic::value::Tensor;
use std::arch::wasm32::{
    f32x4_add, f32x4_extract_lane, f32x4_max, f32x4_mul, f32x4_splat, f32x4_sub, v128,
};

unsafe fn read(from: *const f32) -> v128 {
    from.cast::<v128>().read_unaligned()
}

/// Combines all elements, each with `add` or, where it is in a vector, `add_vector`; the results of
/// parts with `join` and `join_vectors`.
#[inline(always)]
fn fold(
    row: &[f32],
    start: f32,
    add_vector: impl Fn(v128, v128) -> v128,
    add: impl Fn(f32, f32) -> f32,
    join_vectors: impl Fn(v128, v128) -> v128,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let first = f32x4_splat(start);
    let (mut a, mut b, mut c, mut d) = (first, first, first, first);
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        unsafe {
            let from = chunk.as_ptr();
            a = add_vector(a, read(from));
            b = add_vector(b, read(from.add(4)));
            c = add_vector(c, read(from.add(8)));
            d = add_vector(d, read(from.add(12)));
        }
    }
    let all = join_vectors(join_vectors(a, b), join_vectors(c, d));
    let mut total = join(
        join(f32x4_extract_lane::<0>(all), f32x4_extract_lane::<1>(all)),
        join(f32x4_extract_lane::<2>(all), f32x4_extract_lane::<3>(all)),
    );
    for &x in rest {
        total = add(total, x);
    }
    total
}

fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() {
        a
    } else {
        b
    }
}

fn sum(row: &[f32]) -> f32 {
    let (vectors, one) = (|a, b| f32x4_add(a, b), |a, b| a + b);
    fold(row, 0.0, vectors, one, vectors, one)
}

/// Words: the axis.
fn softmax(call: &mut Call) -> Answer {
    let given = call.words.int();
    let data = call.tensor(0)?;
    let at = match data.dims.len() {
        0 => return Err("its input is a scalar".to_string()),
        rank => axis(given.into(), rank)?,
    };
    let extent = data.dims[at];
    let (_, inner) = around(&data.dims, at);
    let mut out = room(data.dims.clone(), 4)?;
    let size = (extent * inner).max(1);
    let parts = data.items::<f32>().chunks(size);
    for (from, to) in parts.zip(out.items_mut::<f32>().chunks_mut(size)) {
        match inner {
            1 => softmax_row(from, to),
            _ => softmax_columns(from, to, inner)?,
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

fn softmax_row(from: &[f32], to: &mut [f32]) {
    let least = f32::NEG_INFINITY;
    let vectors = |a, b| f32x4_max(a, b);
    let top = fold(from, least, vectors, larger, vectors, larger);
    let repeated = [f32x4_splat(top); 4];
    let mut table = Table::new();
    table.out = to.as_mut_ptr();
    table.operands[0] = Operand {
        start: from.as_ptr(),
        step: EVEN,
    };
    table.operands[1] = Operand {
        start: repeated.as_ptr().cast(),
        step: 0,
    };
    unsafe { table.run(wgk_exp_minus, from.len()) };
    let factor = 1.0 / sum(to);
    to.iter_mut().for_each(|x| *x *= factor);
}

/// Along the first of two axes.
fn softmax_columns(from: &[f32], to: &mut [f32], inner: usize) -> Answer {
    let (mut top, mut total) = (room(vec![inner], 4)?, room(vec![inner], 4)?);
    let (top, total) = (top.items_mut::<f32>(), total.items_mut::<f32>());
    top.fill(f32::NEG_INFINITY);
    total.fill(0.0);
    for row in from.chunks_exact(inner) {
        let pairs = top.iter_mut().zip(row);
        pairs.for_each(|(top, &x)| *top = larger(*top, x));
    }
    for (row, to) in from.chunks_exact(inner).zip(to.chunks_exact_mut(inner)) {
        let operands = [row.as_ptr() as *mut f32, top.as_mut_ptr()];
        unsafe { run_strip(wgk_exp_minus, to.as_mut_ptr(), &operands, inner) };
        let pairs = total.iter_mut().zip(to);
        pairs.for_each(|(total, &mut x)| *total += x);
    }
    for to in to.chunks_exact_mut(inner) {
        let pairs = to.iter_mut().zip(&*total);
        pairs.for_each(|(x, &total)| *x /= total);
    }
    Ok(())
}

/// A tensor with every element of the shape that it broadcasts to.
fn whole(tensor: &Tensor, dims: &[usize]) -> Result<Tensor, Failure> {
    if tensor.dims == dims {
        return Ok(tensor.clone());
    }
    if broadcast(dims, &tensor.dims)? != dims {
        return Err("its operands do not fit together".to_string());
    }
    let mut out = room(dims.to_vec(), 4)?;
    let steps = broadcast_steps(&tensor.dims, dims.len());
    gather_strided(tensor.items::<u32>(), 0, &steps, &mut out);
    Ok(out)
}

/// Words: the first axis that is normalised, epsilon as float32. Inputs: data, scale, bias (may be
/// left out), which broadcast to the shape of the axes that are normalised. Output: data.
fn layer_norm(call: &mut Call) -> Answer {
    let given = call.words.int();
    let epsilon = call.words.float();
    let data = call.tensor(0)?;
    let at = axis(given.into(), data.dims.len())?;
    let own = &data.dims[at..];
    let size: usize = own.iter().product();
    let operand = |i: usize| match call.has(i) {
        true => whole(&call.tensor(i)?, own).map(Some),
        false => Ok(None),
    };
    let (scale, bias) = (operand(1)?, operand(2)?);
    let zeros = vec![0.0; if bias.is_some() { 0 } else { size }];
    let scale: &[f32] = scale.as_ref().ok_or("its scale is missing")?.items();
    let bias: &[f32] = bias.as_ref().map_or(&zeros[..], Tensor::items);
    let mut out = room(data.dims.clone(), 4)?;
    let rows = data.items::<f32>().chunks_exact(size.max(1));
    for (from, to) in rows.zip(out.items_mut::<f32>().chunks_exact_mut(size.max(1))) {
        let mean = sum(from) / size as f32;
        let middle = f32x4_splat(mean);
        let squares = fold(
            from,
            0.0,
            |total, x| {
                let distance = f32x4_sub(x, middle);
                f32x4_add(total, f32x4_mul(distance, distance))
            },
            |total, x| total + (x - mean) * (x - mean),
            |a, b| f32x4_add(a, b),
            |a, b| a + b,
        );
        let factor = 1.0 / (squares / size as f32 + epsilon).sqrt();
        let (scale, bias) = (&scale[..to.len()], &bias[..to.len()]);
        for i in 0..to.len() {
            to[i] = (from[i] - mean) * factor * scale[i] + bias[i];
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("fast_softmax", softmax);
export!("fast_layer_norm", layer_norm);
