//! Sequences of tensors, and optional values.

use crate::dynamic::call::{axis, room, Answer, Call, Failure};
use crate::dynamic::ops::control::{join_any, stack};
use crate::dynamic::ops::scan::slice_at;
use crate::dynamic::ops::select::{picked, resolve};
use crate::dynamic::value::{Tensor, Value};

fn sequence(call: &Call, i: usize) -> Result<Vec<Tensor>, Failure> {
    match call.value(i)? {
        Value::Sequence(list) => Ok(list),
        _ => Err("its input is not a sequence".to_string()),
    }
}

/// Inputs: any number of tensors.
fn construct(call: &mut Call) -> Answer {
    let list = (0..call.input_count())
        .map(|i| call.tensor(i))
        .collect::<Result<_, _>>()?;
    call.set(0, Value::Sequence(list));
    Ok(())
}

/// Input `i`, a place in a sequence; `otherwise` where it is left out.
fn place(call: &Call, i: usize, count: usize, otherwise: usize) -> Result<usize, Failure> {
    match call.has(i) {
        true => resolve(call.numbers(i)?.first().copied().unwrap_or(0), count),
        false => Ok(otherwise),
    }
}

/// Inputs: a sequence, a tensor, where to (at the end where it is left out).
fn insert(call: &mut Call) -> Answer {
    let mut list = sequence(call, 0)?;
    let at = match call.has(2) {
        true => {
            let given = call.numbers(2)?.first().copied().unwrap_or(0);
            let count = list.len();
            resolve(given, if given < 0 { count } else { count + 1 })?
        }
        false => list.len(),
    };
    list.insert(at, call.tensor(1)?);
    call.set(0, Value::Sequence(list));
    Ok(())
}

/// Inputs: a sequence, which one goes (the last where it is left out).
fn erase(call: &mut Call) -> Answer {
    let mut list = sequence(call, 0)?;
    let last = list.len().checked_sub(1).ok_or("its sequence is empty")?;
    list.remove(place(call, 1, list.len(), last)?);
    call.set(0, Value::Sequence(list));
    Ok(())
}

/// Inputs: a sequence, which one.
fn at(call: &mut Call) -> Answer {
    let list = sequence(call, 0)?;
    let found = list[place(call, 1, list.len(), 0)?].clone();
    call.set_tensor(0, found);
    Ok(())
}

fn length(call: &mut Call) -> Answer {
    let count = sequence(call, 0)?.len();
    let mut out = call.room::<i64>(vec![])?;
    out.items_mut()[0] = count as i64;
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the axis, whether it is a new one, bytes per element.
fn concat(call: &mut Call) -> Answer {
    let (at, is_new, item) = (call.words.int(), call.words.flag(), call.words.size());
    let list = sequence(call, 0)?;
    let joined = match (is_new, list.is_empty()) {
        (true, _) => stack(&list, at.into(), item)?,
        (_, true) => room(vec![0], item)?,
        _ => join_any(&list, at.into())?,
    };
    call.set_tensor(0, joined);
    Ok(())
}

/// Words: the axis, whether it stays where the parts have extent 1. Inputs: data, lengths (a number
/// for all, or one for each; 1 where they are left out).
fn split(call: &mut Call) -> Answer {
    let (given, keeps) = (call.words.int(), call.words.flag());
    let data = call.tensor(0)?;
    let at = axis(given.into(), data.dims.len())?;
    let extent = data.dims[at];
    let mut lengths = vec![1; extent];
    if call.has(1) {
        let listed = call.numbers(1)?;
        lengths = listed.iter().map(|&n| n.max(0) as usize).collect();
        if call.tensor(1)?.dims.is_empty() {
            let part = lengths[0].max(1);
            lengths = (0..extent)
                .step_by(part)
                .map(|i| part.min(extent - i))
                .collect();
        }
    }
    if lengths.iter().sum::<usize>() != extent {
        return Err("its parts do not make up the axis".to_string());
    }
    let mut list = Vec::new();
    let mut start = 0;
    for &length in &lengths {
        let part = match call.has(1) || keeps {
            true => picked(&data, at, &(start..start + length).collect::<Vec<_>>())?,
            false => slice_at(&data, at, start)?,
        };
        list.push(part);
        start += length;
    }
    call.set(0, Value::Sequence(list));
    Ok(())
}

/// Inputs: a value, or none.
fn optional(call: &mut Call) -> Answer {
    let value = match call.has(0) {
        true => call.value(0)?,
        false => Value::Nothing,
    };
    call.set(0, value);
    Ok(())
}

fn has_element(call: &mut Call) -> Answer {
    let there = call.has(0) && !matches!(call.value(0)?, Value::Nothing);
    let mut out = call.room::<u8>(vec![])?;
    out.items_mut()[0] = u8::from(there);
    call.set_tensor(0, out);
    Ok(())
}

fn element(call: &mut Call) -> Answer {
    match call.value(0)? {
        Value::Nothing => Err("its optional value is empty".to_string()),
        value => {
            call.set(0, value);
            Ok(())
        }
    }
}

export!("sequence_construct", construct);
export!("sequence_insert", insert);
export!("sequence_erase", erase);
export!("sequence_at", at);
export!("sequence_length", length);
export!("sequence_concat", concat);
export!("sequence_split", split);
export!("optional", optional);
export!("optional_has_element", has_element);
export!("optional_get_element", element);
