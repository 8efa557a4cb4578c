//! Matrix products.

use super::chain::Epilogue;
use super::panels::{self, multiply, multiply_vector, pack, packed_columns, Rows, Start};
use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::linear;
use crate::dynamic::ops::shape::{broadcast, broadcast_steps, format_dims};

fn misfit(a: &[usize], b: &[usize]) -> Failure {
    let (a, b) = (format_dims("", a), format_dims("", b));
    ["the shapes ", &a, " and ", &b, " cannot be multiplied"].concat()
}

/// Words: how many axes the result has at least, depth and columns. Inputs: data, whose last axis is multiplied, the packed matrix, a bias
/// per column (may be left out), then the chain's operands after the first.
fn packed(call: &mut Call) -> Answer {
    let least = call.words.size();
    let (depth, columns) = (call.words.size(), call.words.size());
    let matrix = call.tensor(1)?;
    product(call, least, depth, columns, |rows, start| unsafe {
        multiply(rows, matrix.start().cast(), columns, start)
    })
}

/// A product of input 0 and a constant, with the bias in input 2 and the chain of the node.
pub fn product(
    call: &mut Call,
    least: usize,
    depth: usize,
    columns: usize,
    multiply: impl Fn(Rows, Start) -> Answer,
) -> Answer {
    let data = call.tensor(0)?;
    let outer = match data.dims.split_last() {
        Some((&last, outer)) if last == depth => outer,
        _ => return Err(misfit(&data.dims, &[depth, columns])),
    };
    let out = room([outer, &[columns]].concat(), 4)?;
    let bias = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let rows = Rows {
        a: data.start().cast(),
        a_row: depth,
        out: out.start().cast(),
        out_row: columns,
        count: outer.iter().product(),
        depth,
    };
    let epilogue = Epilogue::of(call, least, 3, &out.dims, 0, outer.len())?;
    let start = match &bias {
        Some(bias) => Start::per_column(bias.items()),
        None => Start::zero(),
    };
    if out.count() > 0 {
        unsafe {
            multiply(rows, start)?;
            epilogue.block(0, 0..rows.count, 0, columns, rows.out, columns);
        }
    }
    let out = epilogue.finish(out)?;
    call.set_tensor(0, out);
    Ok(())
}

/// numpy's matmul. Words: how many axes the result has at least. Inputs: both factors, then the
/// chain's operands after the first.
fn matmul(call: &mut Call) -> Answer {
    let least = call.words.size();
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    if a.dims.len() < 2 || b.dims.len() < 2 {
        let out = linear::product::<f32>(&a, &b)?;
        let out = Epilogue::whole(call, least, 2)?.finish(out)?;
        call.set_tensor(0, out);
        return Ok(());
    }
    let (outer_a, rows, depth) = match &a.dims[..] {
        [outer @ .., rows, depth] => (outer, *rows, *depth),
        _ => return Err(misfit(&a.dims, &b.dims)),
    };
    let (outer_b, columns) = match &b.dims[..] {
        [outer @ .., k, columns] if *k == depth => (outer, *columns),
        _ => return Err(misfit(&a.dims, &b.dims)),
    };
    let outer = broadcast(outer_a, outer_b)?;
    let (steps_a, steps_b) = (
        broadcast_steps(outer_a, outer.len()),
        broadcast_steps(outer_b, outer.len()),
    );
    let out = room([&outer[..], &[rows, columns]].concat(), 4)?;
    let epilogue = Epilogue::of(call, least, 2, &out.dims, outer.len(), 1)?;
    let buffer = room(vec![depth * packed_columns(columns) + panels::SLACK], 4)?;
    let batches = match rows * columns {
        0 => 0,
        _ => outer.iter().product(),
    };
    let mut packed = None;
    for batch in 0..batches {
        let (mut rest, mut at_a, mut at_b) = (batch, 0, 0);
        for k in (0..outer.len()).rev() {
            at_a += rest % outer[k] * steps_a[k];
            at_b += rest % outer[k] * steps_b[k];
            rest /= outer[k];
        }
        unsafe {
            let b = b.start().cast::<f32>().add(at_b * depth * columns);
            let part = Rows {
                a: a.start().cast::<f32>().add(at_a * rows * depth),
                a_row: depth,
                out: (out.start().cast::<f32>()).add(batch * rows * columns),
                out_row: columns,
                count: rows,
                depth,
            };
            if columns == 1 {
                multiply_vector(part, b, |_| 0.0);
            } else {
                let to: *mut f32 = buffer.start().cast();
                if packed.replace(at_b) != Some(at_b) {
                    pack(b, columns, depth, columns, to);
                }
                multiply(part, to, columns, Start::zero())?;
            }
            epilogue.block(batch, 0..rows, 0, columns, part.out, columns);
        }
    }
    let out = epilogue.finish(out)?;
    call.set_tensor(0, out);
    Ok(())
}

export!("fast_packed", packed);
export!("fast_matmul", matmul);
