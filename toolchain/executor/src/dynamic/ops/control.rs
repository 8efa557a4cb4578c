//! Branches and loops.

use crate::dynamic::call::{Answer, Call};
use crate::dynamic::ops::shape::join;
use crate::dynamic::run::Body;
use crate::dynamic::value::{Tensor, Value};

/// Inputs: a bool. Bodies: then, else.
fn branch(call: &mut Call) -> Answer {
    let holds = call.tensor(0)?.items::<u8>()[0] != 0;
    let body = call.body(if holds { 0 } else { 1 });
    call.run_body(body)?;
    for (i, result) in results(call, body)?.into_iter().enumerate() {
        call.set(i, result);
    }
    Ok(())
}

/// The results of a body, as its slots have them.
pub fn results(call: &mut Call, body: &'static Body) -> Result<Vec<Value>, String> {
    let slots = call.slots();
    body.outputs
        .get()
        .iter()
        .map(|&slot| {
            let value = slots.get(slot).cloned();
            value.ok_or_else(|| "a branch or body leaves a result open".to_string())
        })
        .collect()
}

/// Inputs: trip count, condition (each may be left out), then what is carried. Body: number of the
/// iteration, condition, carried values -> condition, carried values, values to collect. Words: bytes
/// per element of each collected value.
fn repeat(call: &mut Call) -> Answer {
    let body = call.body(0);
    let limit = match call.has(0) {
        true => call.numbers(0)?.first().copied().unwrap_or(0),
        false => i64::MAX,
    };
    let mut goes_on = !call.has(1) || call.tensor(1)?.items::<u8>()[0] != 0;
    let mut carried = (2..call.input_count())
        .map(|i| call.value(i))
        .collect::<Result<Vec<Value>, _>>()?;
    let collected = body.outputs.get().len() - 1 - carried.len();
    let mut lists: Vec<Vec<Tensor>> = vec![Vec::new(); collected];
    let mut number = 0;
    while number < limit && goes_on {
        let mut counter = call.room::<i64>(vec![])?;
        counter.items_mut()[0] = number;
        let mut condition = call.room::<u8>(vec![])?;
        condition.items_mut()[0] = 1u8;
        let given = [Value::Tensor(counter), Value::Tensor(condition)];
        for (&slot, value) in body
            .inputs
            .get()
            .iter()
            .zip(given.into_iter().chain(carried))
        {
            call.slots().put(slot, value);
        }
        call.run_body(body)?;
        let mut found = results(call, body)?.into_iter();
        goes_on = matches!(found.next(), Some(Value::Tensor(t)) if t.items::<u8>()[0] != 0);
        carried = found.by_ref().take(call.input_count() - 2).collect();
        for (list, value) in lists.iter_mut().zip(found) {
            match value {
                Value::Tensor(tensor) => list.push(tensor),
                _ => return Err("it collects what is not a tensor".to_string()),
            }
        }
        number += 1;
    }
    let first = carried.len();
    for (i, value) in carried.into_iter().enumerate() {
        call.set(i, value);
    }
    for (i, list) in lists.into_iter().enumerate() {
        let item = call.words.size();
        let stacked = stack(&list, 0, item)?;
        call.set_tensor(first + i, stacked);
    }
    Ok(())
}

/// Tensors of one shape along a new axis; where there are none, `item` says how many bytes an element
/// would have.
pub fn stack(list: &[Tensor], at: i64, item: usize) -> Result<Tensor, String> {
    let rank = match list.first() {
        Some(first) => first.dims.len(),
        None => return crate::dynamic::call::room(vec![0], item),
    };
    let at = crate::dynamic::call::axis(at, rank + 1)?;
    let parts: Vec<Tensor> = list
        .iter()
        .map(|tensor| {
            let mut dims = tensor.dims.clone();
            dims.insert(at.min(dims.len()), 1);
            tensor.reshaped(dims)
        })
        .collect();
    join_any(&parts, at as i64)
}

/// `join` of tensors whose elements have the size that they say.
pub fn join_any(parts: &[Tensor], at: i64) -> Result<Tensor, String> {
    match parts.first().map_or(1, |part| part.item) {
        1 => join::<u8>(parts, at),
        2 => join::<u16>(parts, at),
        4 => join::<u32>(parts, at),
        _ => join::<u64>(parts, at),
    }
}

export!("if", branch);
export!("loop", repeat);
