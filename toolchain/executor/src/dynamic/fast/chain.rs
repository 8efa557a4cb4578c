//! Chains of element-wise operators, on their own and behind an operator.

use super::kernels::{Operand, Table, EVEN, MOST_OPERANDS};
use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::shape::{broadcast, broadcast_steps, gather_strided};
use crate::dynamic::run::Strip;
use crate::dynamic::value::{Dims, Tensor};
use std::arch::wasm32::{f32x4_splat, v128};

/// Rows shorter than this are not worth a call each, where there are many.
const SHORT: usize = 12;
const MANY: usize = 32;

/// Operands that stay the same along a strip, 16 times each.
struct Repeated([[v128; 4]; MOST_OPERANDS]);

impl Repeated {
    fn new() -> Repeated {
        Repeated([[f32x4_splat(0.0); 4]; MOST_OPERANDS])
    }

    /// Operand `i` at `place`.
    unsafe fn operand(&mut self, i: usize, place: *const f32, is_even: bool) -> Operand {
        if is_even {
            return Operand {
                start: place,
                step: EVEN,
            };
        }
        self.0[i] = [f32x4_splat(*place); 4];
        Operand {
            start: self.0[i].as_ptr().cast(),
            step: 0,
        }
    }
}

/// Words: how many axes the result has at least. Inputs: the chain's operands.
fn chain(call: &mut Call) -> Answer {
    let least = call.words.size();
    let operands: Vec<Tensor> = (0..call.input_count())
        .map(|i| call.tensor(i))
        .collect::<Result<_, _>>()?;
    let out = apply(call.chain()?, &operands)?;
    call.set_tensor(0, with_rank(out, least));
    Ok(())
}

/// The tensor with further axes of extent 1 in front, if it has less axes than that.
fn with_rank(tensor: Tensor, least: usize) -> Tensor {
    if tensor.dims.len() >= least {
        return tensor;
    }
    let mut dims = vec![1; least - tensor.dims.len()];
    dims.extend(&tensor.dims);
    tensor.reshaped(dims)
}

/// The chain's result, of the shape that its operands broadcast to.
pub fn apply(strip: Strip, operands: &[Tensor]) -> Result<Tensor, Failure> {
    let mut dims = operands[0].dims.clone();
    for operand in &operands[1..] {
        dims = broadcast(&dims, &operand.dims)?;
    }
    let out = room(dims, 4)?;
    let start = out.start().cast();
    write(strip, operands, &out.dims, start)?;
    Ok(out)
}

/// The same into memory; operand 0 may lie there if it has the result's shape.
fn write(strip: Strip, operands: &[Tensor], dims: &[usize], out: *mut f32) -> Answer {
    if dims.contains(&0) {
        return Ok(());
    }
    let steps: Vec<Vec<usize>> = operands
        .iter()
        .map(|operand| broadcast_steps(&operand.dims, dims.len()))
        .collect();
    let (extents, steps) = merged(dims, &steps);
    let (&length, outer) = extents.split_last().expect("there is at least one axis");
    let rows: usize = outer.iter().product();
    if length < SHORT && rows > MANY {
        // One strip over all, where every operand goes on evenly.
        let whole: Vec<Tensor> = operands
            .iter()
            .map(|operand| spread(operand, dims))
            .collect::<Result<_, _>>()?;
        return write(strip, &whole, dims, out);
    }
    let last = outer.len();
    let mut repeated = Repeated::new();
    let mut table = Table::new();
    let mut index = vec![0; last];
    let mut places: Vec<usize> = vec![0; operands.len()];
    for row in 0..rows {
        for (i, operand) in operands.iter().enumerate() {
            unsafe {
                let place = operand.start().cast::<f32>().add(places[i]);
                table.operands[i] = repeated.operand(i, place, steps[i][last] == 1);
            }
        }
        unsafe {
            table.out = out.add(row * length);
            table.run(strip, length);
        }
        for k in (0..last).rev() {
            index[k] += 1;
            let wraps = index[k] == outer[k];
            for (place, steps) in places.iter_mut().zip(&steps) {
                *place += steps[k];
                if wraps {
                    *place -= steps[k] * outer[k];
                }
            }
            if !wraps {
                break;
            }
            index[k] = 0;
        }
    }
    Ok(())
}

/// A tensor with every element that it is broadcast to.
fn spread(operand: &Tensor, dims: &[usize]) -> Result<Tensor, Failure> {
    if operand.dims == dims {
        return Ok(operand.clone());
    }
    let mut whole = room(dims.to_vec(), 4)?;
    let steps = broadcast_steps(&operand.dims, dims.len());
    gather_strided(operand.items::<u32>(), 0, &steps, &mut whole);
    Ok(whole)
}

/// Extents and steps without axes of one element, neighbours along which all operands go on as one.
fn merged(dims: &[usize], steps: &[Vec<usize>]) -> (Dims, Vec<Vec<usize>>) {
    let mut extents = Dims::new();
    let mut kept: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (k, &extent) in dims.iter().enumerate() {
        if extent == 1 {
            continue;
        }
        let joins = !extents.is_empty()
            && (kept.iter().zip(steps)).all(|(kept, own)| kept.last() == Some(&(own[k] * extent)));
        if joins {
            *extents.last_mut().expect("not empty") *= extent;
            for (kept, own) in kept.iter_mut().zip(steps) {
                *kept.last_mut().expect("not empty") = own[k];
            }
        } else {
            extents.push(extent);
            for (kept, own) in kept.iter_mut().zip(steps) {
                kept.push(own[k]);
            }
        }
    }
    if extents.is_empty() {
        return (vec![1], vec![vec![1]; steps.len()]);
    }
    (extents, kept)
}

/// A chain behind an operator that writes blocks of rows by columns.
pub struct Epilogue {
    /// How many axes the result has at least.
    least: usize,
    strip: Option<Strip>,
    /// The chain's operands but the first, which is the operator's result.
    operands: Vec<Tensor>,
    /// Elements between batches, rows and columns, if all operands have such; else the chain follows
    /// when the result is whole.
    steps: Option<Vec<[usize; 3]>>,
}

impl Epilogue {
    /// The chain of a node whose operands begin at input `first`; `least` is the node's first word.
    ///
    /// `dims` is the result's shape: so many axes are the batch, so many rows, the rest columns.
    pub fn of(
        call: &Call,
        least: usize,
        first: usize,
        dims: &[usize],
        batch: usize,
        rows: usize,
    ) -> Result<Epilogue, Failure> {
        let mut epilogue = Epilogue::whole(call, least, first)?;
        let (row, column) = (batch, batch + rows);
        let columns: usize = dims[column..].iter().product();
        if columns >= SHORT {
            let operands = epilogue.operands.iter();
            epilogue.steps = operands
                .map(|operand| block_steps(operand, dims, row, column))
                .collect();
        }
        Ok(epilogue)
    }

    /// The same for an operator that has no blocks.
    pub fn whole(call: &Call, least: usize, first: usize) -> Result<Epilogue, Failure> {
        Ok(Epilogue {
            least,
            strip: match call.has_chain() {
                true => Some(call.chain()?),
                false => None,
            },
            operands: (first..call.input_count())
                .map(|i| call.tensor(i))
                .collect::<Result<_, _>>()?,
            steps: None,
        })
    }

    /// Applies the chain to rows of one batch, from a column on.
    ///
    /// # Safety
    /// `out` is the first element of the block, `step` floats lie between rows.
    pub unsafe fn block(
        &self,
        batch: usize,
        rows: std::ops::Range<usize>,
        column: usize,
        columns: usize,
        out: *mut f32,
        step: usize,
    ) {
        let (strip, steps) = match (self.strip, &self.steps) {
            (Some(strip), Some(steps)) => (strip, steps),
            _ => return,
        };
        let mut table = Table::new();
        if self.operands.is_empty() {
            for number in 0..rows.len() {
                table.out = out.add(number * step);
                table.operands[0] = Operand {
                    start: table.out,
                    step: EVEN,
                };
                table.run(strip, columns);
            }
            return;
        }
        let mut repeated = Repeated::new();
        for (number, row) in rows.enumerate() {
            let out = out.add(number * step);
            table.out = out;
            table.operands[0] = Operand {
                start: out,
                step: EVEN,
            };
            for (i, (operand, steps)) in self.operands.iter().zip(steps).enumerate() {
                let place = batch * steps[0] + row * steps[1] + column * steps[2];
                let place = operand.start().cast::<f32>().add(place);
                table.operands[i + 1] = repeated.operand(i, place, steps[2] == 1);
            }
            table.run(strip, columns);
        }
    }

    /// Applies the chain to the whole result, if `block` did nothing.
    pub fn finish(self, out: Tensor) -> Result<Tensor, Failure> {
        let strip = match (self.strip, &self.steps) {
            (Some(strip), None) => strip,
            _ => return Ok(with_rank(out, self.least)),
        };
        let mut operands = vec![out];
        operands.extend(self.operands);
        let mut dims = operands[0].dims.clone();
        for operand in &operands[1..] {
            dims = broadcast(&dims, &operand.dims)?;
        }
        if dims != operands[0].dims {
            return Ok(with_rank(apply(strip, &operands)?, self.least));
        }
        let start = operands[0].start().cast();
        write(strip, &operands, &dims, start)?;
        Ok(with_rank(operands.swap_remove(0), self.least))
    }
}

/// Elements of an operand between batches, rows and columns of a result, if it has such.
fn block_steps(operand: &Tensor, dims: &[usize], row: usize, column: usize) -> Option<[usize; 3]> {
    if broadcast(&operand.dims, dims).ok()? != dims {
        return None;
    }
    let steps = broadcast_steps(&operand.dims, dims.len());
    let group = |from: usize, to: usize| {
        let mut step = None;
        let mut wanted = 0;
        for k in (from..to).rev().filter(|&k| dims[k] > 1) {
            match step {
                None => step = Some(steps[k]),
                Some(_) if steps[k] != wanted => return None,
                _ => (),
            }
            wanted = steps[k] * dims[k];
        }
        Some(step.unwrap_or(0))
    };
    Some([
        group(0, row)?,
        group(row, column)?,
        group(column, dims.len())?,
    ])
}

export!("fast_chain", chain);
