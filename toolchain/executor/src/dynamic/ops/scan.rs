//! Scan: a loop over slices of its inputs.

use crate::dynamic::call::{axis, Answer, Call, Failure};
use crate::dynamic::ops::control::{results, stack};
use crate::dynamic::ops::shape::{gather_strided, strides};
use crate::dynamic::value::{Tensor, Value};

/// Words: how many states there are; for each scanned input its axis, then for each whether from the
/// end; for each collected output its axis, then whether from the end, then bytes per element.
/// Inputs: states, then what is scanned. Body: states and slices -> states and slices.
fn scan(call: &mut Call) -> Answer {
    let body = call.body(0);
    let count = call.words.size();
    let scanned = call.input_count() - count;
    let collected = body.outputs.get().len() - count;
    let axes: Vec<i32> = call.words.ints(scanned).to_vec();
    let reversed: Vec<i32> = call.words.ints(scanned).to_vec();
    let out_axes: Vec<i32> = call.words.ints(collected).to_vec();
    let out_reversed: Vec<i32> = call.words.ints(collected).to_vec();
    let mut states = (0..count)
        .map(|i| call.value(i))
        .collect::<Result<Vec<Value>, _>>()?;
    let inputs = (count..count + scanned)
        .map(|i| call.tensor(i))
        .collect::<Result<Vec<Tensor>, _>>()?;
    let axes = axes
        .iter()
        .zip(&inputs)
        .map(|(&at, input)| axis(at.into(), input.dims.len()))
        .collect::<Result<Vec<usize>, _>>()?;
    let length = inputs.first().map_or(0, |input| input.dims[axes[0]]);
    if inputs
        .iter()
        .zip(&axes)
        .any(|(x, &at)| x.dims[at] != length)
    {
        return Err("what it scans differs in length".to_string());
    }
    let mut lists: Vec<Vec<Tensor>> = vec![Vec::new(); collected];
    for step in 0..length {
        let mut slots = body.inputs.get().iter();
        for (state, &slot) in states.into_iter().zip(slots.by_ref()) {
            call.slots().put(slot, state);
        }
        for (i, &slot) in slots.enumerate() {
            let at = if reversed[i] != 0 {
                length - 1 - step
            } else {
                step
            };
            let part = slice_at(&inputs[i], axes[i], at)?;
            call.slots().put(slot, Value::Tensor(part));
        }
        call.run_body(body)?;
        let mut found = results(call, body)?.into_iter();
        states = found.by_ref().take(count).collect();
        for (list, value) in lists.iter_mut().zip(found) {
            match value {
                Value::Tensor(tensor) => list.push(tensor),
                _ => return Err("it collects what is not a tensor".to_string()),
            }
        }
    }
    for (i, state) in states.into_iter().enumerate() {
        call.set(i, state);
    }
    for (i, mut list) in lists.into_iter().enumerate() {
        if out_reversed[i] != 0 {
            list.reverse();
        }
        let item = call.words.size();
        let stacked = stack(&list, out_axes[i].into(), item)?;
        call.set_tensor(count + i, stacked);
    }
    Ok(())
}

/// One slice along an axis, without that axis.
pub fn slice_at(data: &Tensor, at: usize, index: usize) -> Result<Tensor, Failure> {
    let (mut dims, mut steps) = (data.dims.clone(), strides(&data.dims));
    dims.remove(at);
    let start = index * steps.remove(at);
    let mut out = crate::dynamic::call::room(dims, data.item)?;
    match data.item {
        1 => gather_strided(data.items::<u8>(), start, &steps, &mut out),
        2 => gather_strided(data.items::<u16>(), start, &steps, &mut out),
        4 => gather_strided(data.items::<u32>(), start, &steps, &mut out),
        _ => gather_strided(data.items::<u64>(), start, &steps, &mut out),
    }
    Ok(out)
}

export!("scan", scan);
