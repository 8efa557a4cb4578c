//! Operators whose outputs' sizes depend on data, and other operators over indices.

use std::cmp::Ordering;

use crate::dynamic::call::{axis, Answer, Call, Failure};
use crate::dynamic::ops::scan::slice_at;
use crate::dynamic::ops::select::{around, picked};
use crate::dynamic::ops::shape::strides;
use crate::dynamic::value::Tensor;
use crate::operators::number::Number;
use crate::operators::{axes, scatter, Words, DONE};

/// The indices of the elements that are not 0: one row per axis.
fn nonzero<T: Number>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let found: Vec<usize> = (data.items::<T>().iter().enumerate())
        .filter(|(_, &x)| x != T::ZERO)
        .map(|(i, _)| i)
        .collect();
    let own = strides(&data.dims);
    let mut out = call.room::<i64>(vec![data.dims.len(), found.len()])?;
    let rows = out.items_mut::<i64>().chunks_mut(found.len().max(1));
    for (k, row) in rows.enumerate() {
        for (item, &place) in row.iter_mut().zip(&found) {
            *item = (place / own[k] % data.dims[k]) as i64;
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

fn order<T: Number>(a: &Tensor, b: &Tensor) -> Ordering {
    let pairs = a.items::<T>().iter().zip(b.items::<T>());
    #[allow(clippy::eq_op)] // only NaN differs from itself
    let one = |(&a, &b): (&T, &T)| a.partial_cmp(&b).unwrap_or_else(|| (a != a).cmp(&(b != b)));
    pairs
        .map(one)
        .find(|&o| o != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// Words: whether sorted, whether along an axis, which. Outputs: the distinct ones; of each where it
/// first stands; of each element which it is; of each how often.
fn unique<T: Number>(call: &mut Call) -> Answer {
    let (sorted, has_axis, given) = (call.words.flag(), call.words.flag(), call.words.int());
    let mut data = call.tensor(0)?;
    if !has_axis {
        data = data.reshaped(vec![data.count()]);
    }
    let at = axis(given.into(), data.dims.len())?;
    let parts = (0..data.dims[at])
        .map(|i| slice_at(&data, at, i))
        .collect::<Result<Vec<Tensor>, Failure>>()?;
    let mut ranked: Vec<usize> = (0..parts.len()).collect();
    ranked.sort_by(|&a, &b| order::<T>(&parts[a], &parts[b]).then(a.cmp(&b)));
    // Where each distinct one first stands, and all its places.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in ranked {
        match groups.last_mut() {
            Some(group) if order::<T>(&parts[group[0]], &parts[i]) == Ordering::Equal => {
                group.push(i)
            }
            _ => groups.push(vec![i]),
        }
    }
    if !sorted {
        groups.sort_by_key(|group| group[0]);
    }
    let firsts: Vec<usize> = groups.iter().map(|group| group[0]).collect();
    let mut inverse = vec![0; parts.len()];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|&i| inverse[i] = number as i64);
    }
    let distinct = picked(&data, at, &firsts)?;
    call.set_tensor(0, distinct);
    let firsts = firsts.iter().map(|&i| i as i64).collect();
    let counts = groups.iter().map(|group| group.len() as i64).collect();
    for (i, numbers) in [firsts, inverse, counts].iter().enumerate() {
        set_numbers(call, i + 1, numbers)?;
    }
    Ok(())
}

fn set_numbers(call: &mut Call, i: usize, numbers: &[i64]) -> Answer {
    let mut out = call.room::<i64>(vec![numbers.len()])?;
    out.items_mut().copy_from_slice(numbers);
    call.set_tensor(i, out);
    Ok(())
}

trait Stepped: Copy {
    fn count(start: Self, limit: Self, delta: Self) -> f64;
    fn at(start: Self, delta: Self, i: usize) -> Self;
}

macro_rules! stepped {
    ($($dtype:ident)+) => {
        $(impl Stepped for $dtype {
            fn count(start: Self, limit: Self, delta: Self) -> f64 {
                ((limit as f64 - start as f64) / delta as f64).ceil()
            }
            fn at(start: Self, delta: Self, i: usize) -> Self {
                start + delta * i as $dtype
            }
        })+
    };
}

stepped!(i16 i32 i64 f32 f64);

/// Inputs: start, limit (left out itself), delta.
fn range<T: Stepped>(call: &mut Call) -> Answer {
    let scalar = |i: usize| -> Result<T, Failure> {
        let given = call.tensor(i)?;
        given
            .items::<T>()
            .first()
            .copied()
            .ok_or_else(|| "an input is empty".to_string())
    };
    let (start, limit, delta) = (scalar(0)?, scalar(1)?, scalar(2)?);
    let count = T::count(start, limit, delta);
    if count.is_nan() || count > 2e9 {
        return Err("its range has no end".to_string());
    }
    let mut out = call.room::<T>(vec![count.max(0.0) as usize])?;
    let items = out.items_mut::<T>().iter_mut().enumerate();
    items.for_each(|(i, x)| *x = T::at(start, delta, i));
    call.set_tensor(0, out);
    Ok(())
}

/// Calls an operator of the library with words that are known now.
fn with_words(words: &[usize], operator: impl Fn(Words) -> i32) -> Answer {
    let words: Vec<i32> = words.iter().map(|&word| word as i32).collect();
    match operator(unsafe { Words::new(words.as_ptr()) }) {
        DONE => Ok(()),
        _ => Err("an index is out of range".to_string()),
    }
}

/// Words: the axis, whether the largest. Inputs: data, k.
fn top_k<T: Number>(call: &mut Call) -> Answer {
    let (given, largest) = (call.words.int(), call.words.size());
    let data = call.tensor(0)?;
    let at = axis(given.into(), data.dims.len())?;
    let k = call.numbers(1)?.first().copied().unwrap_or(-1);
    let extent = data.dims[at];
    let k = usize::try_from(k).ok().filter(|&k| k <= extent);
    let k = k.ok_or("k is not between 0 and the extent of the axis")?;
    let (outer, inner) = around(&data.dims, at);
    let mut dims = data.dims.clone();
    dims[at] = k;
    let mut values = call.room::<T>(dims.clone())?;
    let mut indices = call.room::<i64>(dims)?;
    let (to, at) = (values.items_mut::<T>(), indices.items_mut::<i64>());
    let (to, at) = (to.as_mut_ptr(), at.as_mut_ptr());
    let from = data.items::<T>().as_ptr();
    with_words(&[outer, extent, inner, k, largest], |words| unsafe {
        axes::top_k::<T>(words, from, to, at)
    })?;
    call.set_tensor(0, values);
    call.set_tensor(1, indices);
    Ok(())
}

/// Words: whether an element itself is left out, whether from the end, whether a product. Inputs:
/// data, the axis.
fn cumulate<T: Number>(call: &mut Call) -> Answer {
    let (exclusive, reverse) = (call.words.size(), call.words.size());
    let is_product = call.words.flag();
    let data = call.tensor(0)?;
    let given = call.numbers(1)?.first().copied().unwrap_or(0);
    let at = axis(given, data.dims.len())?;
    let (outer, inner) = around(&data.dims, at);
    let mut out = call.room::<T>(data.dims.clone())?;
    let (from, to) = (
        data.items::<T>().as_ptr(),
        out.items_mut::<T>().as_mut_ptr(),
    );
    let words = [outer, data.dims[at], inner, exclusive, reverse];
    with_words(&words, |words| unsafe {
        match is_product {
            true => axes::cumulative_product::<T>(words, from, to),
            false => axes::cumulative_sum::<T>(words, from, to),
        }
    })?;
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the axis of the result. Inputs: indices (int64), depth, off and on.
fn one_hot<T: Copy>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let (indices, values) = (call.tensor(0)?, call.tensor(2)?);
    let depth = call.numbers(1)?.first().copied().unwrap_or(0).max(0) as usize;
    let at = axis(given.into(), indices.dims.len() + 1)?;
    let mut dims = indices.dims.clone();
    dims.insert(at, depth);
    let (outer, inner) = around(&dims, at);
    let mut out = call.room::<T>(dims)?;
    let (from, to) = (
        indices.items::<i64>().as_ptr(),
        out.items_mut::<T>().as_mut_ptr(),
    );
    let values = values.items::<T>().as_ptr();
    with_words(&[outer, depth, inner], |words| unsafe {
        axes::one_hot::<T>(words, from, values, to)
    })?;
    call.set_tensor(0, out);
    Ok(())
}

/// Words: reduction (0 none, 1 add, 2 mul, 3 max, 4 min). Inputs: data, indices (int64), updates.
fn scatter_nd<T: Number>(call: &mut Call) -> Answer {
    let reduction = call.words.size();
    let (data, indices, updates) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let depth = *indices.dims.last().ok_or("its indices are a scalar")?;
    if depth > data.dims.len() {
        return Err("its indices have more axes than its data".to_string());
    }
    let count = indices.dims[..indices.dims.len() - 1].iter().product();
    let slice = data.dims[depth..].iter().product();
    let mut out = call.room::<T>(data.dims.clone())?;
    let to = out.items_mut::<T>().as_mut_ptr();
    let words = [&[reduction, count, slice, depth], &data.dims[..depth]].concat();
    if updates.count() != count * slice {
        return Err("its updates do not fit its indices".to_string());
    }
    with_words(&words, |words| unsafe {
        let (data, updates) = (data.items::<T>().as_ptr(), updates.items::<T>().as_ptr());
        scatter::scatter_nd::<T>(words, data, indices.items::<i64>().as_ptr(), updates, to)
    })?;
    call.set_tensor(0, out);
    Ok(())
}

/// Words: reduction, the axis. Inputs: data, indices (int64), updates.
fn scatter_elements<T: Number>(call: &mut Call) -> Answer {
    let (reduction, given) = (call.words.size(), call.words.int());
    let (data, indices, updates) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let rank = data.dims.len();
    let at = axis(given.into(), rank)?;
    if indices.dims.len() != rank || indices.dims != updates.dims {
        return Err("its indices do not fit its data and updates".to_string());
    }
    let inside = (0..rank).all(|k| k == at || indices.dims[k] <= data.dims[k]);
    if !inside {
        return Err("its indices have a larger extent than its data".to_string());
    }
    let mut out = call.room::<T>(data.dims.clone())?;
    let to = out.items_mut::<T>().as_mut_ptr();
    let words = [&[reduction, at, rank][..], &data.dims, &indices.dims].concat();
    with_words(&words, |words| unsafe {
        let (data, updates) = (data.items::<T>().as_ptr(), updates.items::<T>().as_ptr());
        scatter::scatter_elements::<T>(words, data, indices.items::<i64>().as_ptr(), updates, to)
    })?;
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the upper triangle or the lower. Inputs: data, the diagonal (0 where it is left out).
fn trilu<T: Copy + Default>(call: &mut Call) -> Answer {
    let upper = call.words.flag();
    let data = call.tensor(0)?;
    let k = match call.has(1) {
        true => call.numbers(1)?.first().copied().unwrap_or(0),
        false => 0,
    };
    let (rows, columns) = match data.dims[..] {
        [.., rows, columns] => (rows, columns),
        _ => return Err("its input is no matrix".to_string()),
    };
    let mut out = call.room::<T>(data.dims.clone())?;
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    for (i, (item, &x)) in to.iter_mut().zip(from).enumerate() {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let inside = if upper {
            column >= row + k
        } else {
            column <= row + k
        };
        *item = if inside { x } else { T::default() };
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("nonzero", nonzero, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("unique", unique, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("range", range, i16 i32 i64 f32 f64);
export!("top_k", top_k, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("cumulate", cumulate, f32 f64 i32 i64 u32 u64);
export!("one_hot", one_hot, u8 u16 u32 u64);
export!("scatter_nd", scatter_nd, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("scatter_elements", scatter_elements, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("trilu", trilu, u8 u16 u32 u64);
