//! Operators that pick elements by index: gather, slice, split, pad, compress.

use crate::dynamic::call::{axis, room, Answer, Call, Failure};
use crate::dynamic::ops::shape::{format_dims, gather_strided, strides};
use crate::dynamic::value::{Dims, Tensor};

/// An index that counts from the end where it is negative.
pub fn resolve(index: i64, extent: usize) -> Result<usize, Failure> {
    let found = if index < 0 {
        index + extent as i64
    } else {
        index
    };
    match usize::try_from(found) {
        Ok(found) if found < extent => Ok(found),
        _ => Err([
            "the index ",
            &index.to_string(),
            " is outside of ",
            &extent.to_string(),
            " elements",
        ]
        .concat()),
    }
}

/// Words: the axis. Inputs: data, indices.
fn gather<T: Copy>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let (data, indices) = (call.tensor(0)?, call.tensor(1)?);
    let at = axis(given.into(), data.dims.len())?;
    let chosen = call.numbers(1)?;
    let extent = data.dims[at];
    let chosen = chosen.iter().map(|&i| resolve(i, extent));
    let chosen = chosen.collect::<Result<Vec<usize>, _>>()?;
    let (outer, inner) = around(&data.dims, at);
    let dims = [&data.dims[..at], &indices.dims[..], &data.dims[at + 1..]].concat();
    let mut out = call.room::<T>(dims)?;
    pick(
        data.items::<T>(),
        out.items_mut(),
        outer,
        extent,
        inner,
        &chosen,
    );
    call.set_tensor(0, out);
    Ok(())
}

/// Copies elements along an axis: those of these indices.
fn pick<T: Copy>(
    from: &[T],
    to: &mut [T],
    outer: usize,
    extent: usize,
    inner: usize,
    chosen: &[usize],
) {
    if inner == 0 {
        return;
    }
    if inner == 1 {
        // To copy single elements as slices would be a call for each.
        let is_doubled = chosen.len() == 2 * extent && (0..).zip(chosen).all(|(i, &k)| k == i / 2);
        for (o, row) in to.chunks_exact_mut(chosen.len().max(1)).enumerate() {
            let from = &from[o * extent..(o + 1) * extent];
            if is_doubled {
                // Vectors, where places are looked up one by one.
                for (i, &x) in from.iter().enumerate() {
                    row[2 * i] = x;
                    row[2 * i + 1] = x;
                }
                continue;
            }
            let pairs = row.iter_mut().zip(chosen);
            pairs.for_each(|(place, &i)| *place = from[i]);
        }
        return;
    }
    let mut places = to.chunks_exact_mut(inner);
    for o in 0..outer {
        for (&i, place) in chosen.iter().zip(&mut places) {
            let start = (o * extent + i) * inner;
            place.copy_from_slice(&from[start..start + inner]);
        }
    }
}

/// The elements before an axis and after it.
pub fn around(dims: &[usize], at: usize) -> (usize, usize) {
    (dims[..at].iter().product(), dims[at + 1..].iter().product())
}

/// Along an axis, only these elements.
pub fn picked(data: &Tensor, at: usize, chosen: &[usize]) -> Result<Tensor, Failure> {
    let mut dims = data.dims.clone();
    dims[at] = chosen.len();
    let (outer, inner) = around(&data.dims, at);
    let mut out = room(dims, data.item)?;
    let extent = data.dims[at];
    match data.item {
        1 => pick(
            data.items::<u8>(),
            out.items_mut(),
            outer,
            extent,
            inner,
            chosen,
        ),
        2 => pick(
            data.items::<u16>(),
            out.items_mut(),
            outer,
            extent,
            inner,
            chosen,
        ),
        4 => pick(
            data.items::<u32>(),
            out.items_mut(),
            outer,
            extent,
            inner,
            chosen,
        ),
        _ => pick(
            data.items::<u64>(),
            out.items_mut(),
            outer,
            extent,
            inner,
            chosen,
        ),
    }
    Ok(out)
}

/// Words: the axis. Inputs: data, indices of the result's shape.
fn gather_elements<T: Copy>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let (data, indices) = (call.tensor(0)?, call.tensor(1)?);
    let at = axis(given.into(), data.dims.len())?;
    if indices.dims.len() != data.dims.len() {
        return Err("its indices have another rank than its data".to_string());
    }
    let chosen = call.numbers(1)?;
    let own = strides(&data.dims);
    let of = strides(&indices.dims);
    let mut out = call.room::<T>(indices.dims.clone())?;
    let from = data.items::<T>();
    for (i, item) in out.items_mut::<T>().iter_mut().enumerate() {
        let mut place = 0;
        for k in 0..own.len() {
            let index = match k == at {
                true => resolve(chosen[i], data.dims[k])?,
                false => resolve((i / of[k] % indices.dims[k]) as i64, data.dims[k])?,
            };
            place += index * own[k];
        }
        *item = from[place];
    }
    call.set_tensor(0, out);
    Ok(())
}

/// Words: batch axes. Inputs: data, indices, whose last axis has an index along each axis.
fn gather_nd<T: Copy>(call: &mut Call) -> Answer {
    let batch = call.words.size();
    let (data, indices) = (call.tensor(0)?, call.tensor(1)?);
    let chosen = call.numbers(1)?;
    let depth = *indices.dims.last().ok_or("its indices are a scalar")?;
    if batch + depth > data.dims.len() || batch + 1 > indices.dims.len() {
        return Err("its indices have more axes than its data".to_string());
    }
    let inner: usize = data.dims[batch + depth..].iter().product();
    let block: usize = data.dims[batch..].iter().product();
    let per_batch: usize = indices.dims[batch..indices.dims.len() - 1].iter().product();
    let batches: usize = indices.dims[..batch].iter().product();
    let dims = [
        &indices.dims[..indices.dims.len() - 1],
        &data.dims[batch + depth..],
    ]
    .concat();
    let mut out = call.room::<T>(dims)?;
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    for i in 0..batches * per_batch {
        let mut place = 0;
        for k in 0..depth {
            let extent = data.dims[batch + k];
            place = place * extent + resolve(chosen[i * depth + k], extent)?;
        }
        let start = i / per_batch * block + place * inner;
        to[i * inner..(i + 1) * inner].copy_from_slice(&from[start..start + inner]);
    }
    call.set_tensor(0, out);
    Ok(())
}

/// Inputs: data, starts, ends, axes, steps (the last two may be left out).
fn slice<T: Copy>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let (starts, ends) = (call.numbers(1)?, call.numbers(2)?);
    let axes = match call.has(3) {
        true => call.numbers(3)?,
        false => (0..starts.len() as i64).collect(),
    };
    let by = match call.has(4) {
        true => call.numbers(4)?,
        false => vec![1; starts.len()],
    };
    let (mut dims, mut steps, mut first) = (data.dims.clone(), strides(&data.dims), 0);
    if [ends.len(), axes.len(), by.len()] != [starts.len(); 3] {
        return Err("its starts, ends, axes and steps differ in number".to_string());
    }
    for (i, &given) in axes.iter().enumerate() {
        let at = axis(given, dims.len())?;
        let extent = data.dims[at] as i64;
        let clamped = |bound: i64, low: i64, high: i64| {
            let bound = if bound < 0 {
                bound.saturating_add(extent)
            } else {
                bound
            };
            bound.clamp(low, high)
        };
        let step = by[i];
        let (start, count) = if step > 0 {
            let (start, end) = (clamped(starts[i], 0, extent), clamped(ends[i], 0, extent));
            (start, (end - start + step - 1).max(0) / step)
        } else if step < 0 {
            // An end of -1 after counting from the end stands before the first element.
            let start = clamped(starts[i], -1, extent - 1);
            let end = clamped(ends[i], -1, extent - 1);
            (
                start,
                ((start - end).max(0) as u64).div_ceil_by(step.unsigned_abs()) as i64,
            )
        } else {
            return Err("a step of a slice is 0".to_string());
        };
        dims[at] = count as usize;
        if count > 0 {
            first += start as usize * steps[at];
        }
        steps[at] = steps[at].wrapping_mul(step as usize);
    }
    let mut out = call.room::<T>(dims)?;
    if out.count() > 0 {
        copy_stepped(data.items::<T>(), first, &steps, &mut out);
    }
    call.set_tensor(0, out);
    Ok(())
}

trait DivideUp {
    fn div_ceil_by(self, divisor: Self) -> Self;
}

impl DivideUp for u64 {
    fn div_ceil_by(self, divisor: u64) -> u64 {
        self / divisor + u64::from(self % divisor != 0)
    }
}

/// `gather_strided` with steps that may be negative (as wrapped numbers).
fn copy_stepped<T: Copy>(from: &[T], first: usize, steps: &[usize], out: &mut Tensor) {
    let dims = out.dims.clone();
    let (inner, rest) = match dims.split_last() {
        Some((&inner, rest)) => (inner, rest),
        None => {
            out.items_mut::<T>()[0] = from[first];
            return;
        }
    };
    let step = steps[rest.len()];
    let mut index = vec![0; rest.len()];
    let mut place = first;
    for row in out.items_mut::<T>().chunks_exact_mut(inner) {
        if step == 1 {
            row.copy_from_slice(&from[place..place + inner]);
        } else {
            let mut at = place;
            for item in row {
                *item = from[at];
                at = at.wrapping_add(step);
            }
        }
        for a in (0..rest.len()).rev() {
            index[a] += 1;
            place = place.wrapping_add(steps[a]);
            if index[a] < rest[a] {
                break;
            }
            place = place.wrapping_sub(steps[a].wrapping_mul(rest[a]));
            index[a] = 0;
        }
    }
}

/// Words: the axis, the number of parts where they are not listed (else 0). Inputs: data, lengths.
fn split<T: Copy>(call: &mut Call) -> Answer {
    let (given, count) = (call.words.int(), call.words.size());
    let data = call.tensor(0)?;
    let at = axis(given.into(), data.dims.len())?;
    let extent = data.dims[at];
    let lengths: Vec<usize> = if call.has(1) {
        call.numbers(1)?
            .iter()
            .map(|&n| n.max(0) as usize)
            .collect()
    } else {
        let part = (extent + count - 1) / count.max(1);
        (0..count)
            .map(|i| part.min(extent.saturating_sub(i * part)))
            .collect()
    };
    if lengths.iter().sum::<usize>() != extent {
        return Err(format_dims("its parts do not make up ", &[extent]));
    }
    let own = strides(&data.dims);
    let mut start = 0;
    for (i, &length) in lengths.iter().enumerate() {
        let mut dims = data.dims.clone();
        dims[at] = length;
        let mut out = call.room::<T>(dims)?;
        gather_strided(data.items::<T>(), start * own[at], &own, &mut out);
        call.set_tensor(i, out);
        start += length;
    }
    Ok(())
}

/// Words: mode (0 constant, 1 reflect, 2 edge, 3 wrap). Inputs: data, pads, value, axes (the last two
/// may be left out).
fn pad<T: Copy + Default>(call: &mut Call) -> Answer {
    let mode = call.words.int();
    let data = call.tensor(0)?;
    let rank = data.dims.len();
    let pads = call.numbers(1)?;
    let axes = match call.has(3) {
        true => call.numbers(3)?,
        false => (0..rank as i64).collect(),
    };
    let fill = match call.has(2) {
        true => call
            .tensor(2)?
            .items::<T>()
            .first()
            .copied()
            .unwrap_or_default(),
        false => T::default(),
    };
    if pads.len() != 2 * axes.len() {
        return Err("it has not two pads per axis".to_string());
    }
    // For each axis and place of the result the input's place, or none.
    let mut sources: Vec<Vec<Option<usize>>> = data
        .dims
        .iter()
        .map(|&d| (0..d).map(Some).collect())
        .collect();
    for (i, &given) in axes.iter().enumerate() {
        let at = axis(given, rank)?;
        let extent = data.dims[at] as i64;
        let end = extent + pads[axes.len() + i];
        sources[at] = (-pads[i]..end).map(|x| source(x, extent, mode)).collect();
    }
    let dims: Dims = sources.iter().map(Vec::len).collect();
    let mut out = call.room::<T>(dims)?;
    let own = strides(&data.dims);
    let from = data.items::<T>();
    let inner = out.dims.last().copied().unwrap_or(1);
    let none = vec![Some(0)];
    let last = sources.last().unwrap_or(&none);
    let outer_dims = out.dims[..rank.saturating_sub(1)].to_vec();
    let outer_strides = strides(&outer_dims);
    for (i, row) in out.items_mut::<T>().chunks_mut(inner.max(1)).enumerate() {
        let base = (0..outer_dims.len()).try_fold(0, |base, k| {
            let place = sources[k][i / outer_strides[k] % outer_dims[k]]?;
            Some(base + place * own[k])
        });
        for (item, place) in row.iter_mut().zip(last) {
            *item = match (base, place) {
                (Some(base), Some(place)) => from[base + place],
                _ => fill,
            };
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

/// Which element stands at place `x` of a padded axis.
fn source(x: i64, extent: i64, mode: i32) -> Option<usize> {
    if (0..extent).contains(&x) {
        return Some(x as usize);
    }
    if extent == 0 {
        return None;
    }
    let place = match mode {
        1 if extent == 1 => 0,
        1 => {
            let period = 2 * (extent - 1);
            let x = x.rem_euclid(period);
            x.min(period - x)
        }
        2 => x.clamp(0, extent - 1),
        3 => x.rem_euclid(extent),
        _ => return None,
    };
    Some(place as usize)
}

/// Words: whether along an axis, which. Inputs: data, a bool for each element.
fn compress(call: &mut Call) -> Answer {
    let (has_axis, given) = (call.words.flag(), call.words.int());
    let mut data = call.tensor(0)?;
    if !has_axis {
        data = data.reshaped(vec![data.count()]);
    }
    let at = axis(given.into(), data.dims.len())?;
    let condition = call.tensor(1)?;
    let chosen: Vec<usize> = (condition.items::<u8>().iter().enumerate())
        .filter(|(_, &c)| c != 0)
        .map(|(i, _)| i)
        .collect();
    if chosen.last().map_or(false, |&i| i >= data.dims[at]) {
        return Err("its condition is longer than its axis".to_string());
    }
    let out = picked(&data, at, &chosen)?;
    call.set_tensor(0, out);
    Ok(())
}

export!("gather", gather, u8 u16 u32 u64);
export!("gather_elements", gather_elements, u8 u16 u32 u64);
export!("gather_nd", gather_nd, u8 u16 u32 u64);
export!("slice", slice, u8 u16 u32 u64);
export!("split", split, u8 u16 u32 u64);
export!("pad", pad, u8 u16 u32 u64);
export!("compress", compress);
