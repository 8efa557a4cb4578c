//! Shapes, and tensors under another shape. What moves elements is generic over an integer of their
//! size.

use crate::dynamic::call::{axis, Answer, Call, Failure};
use crate::dynamic::value::{elements, Dims, Tensor};

/// The value itself, a sequence too.
fn identity(call: &mut Call) -> Answer {
    let value = call.value(0)?;
    call.set(0, value);
    Ok(())
}

/// Words: start, end (each from the back if negative; the end may be beyond).
fn shape(call: &mut Call) -> Answer {
    let rank = call.tensor(0)?.dims.len() as i64;
    let mut bound = || {
        let given = i64::from(call.words.int());
        (if given < 0 { given + rank } else { given }).clamp(0, rank) as usize
    };
    let (start, end) = (bound(), bound());
    let dims = &call.tensor(0)?.dims;
    let extents: Vec<i64> = (start..end).map(|i| dims[i] as i64).collect();
    let mut out = call.room::<i64>(vec![extents.len()])?;
    out.items_mut().copy_from_slice(&extents);
    call.set_tensor(0, out);
    Ok(())
}

fn size(call: &mut Call) -> Answer {
    let count = call.tensor(0)?.count();
    let mut out = call.room::<i64>(vec![])?;
    out.items_mut()[0] = count as i64;
    call.set_tensor(0, out);
    Ok(())
}

/// The axes after the second: batch and channels come first.
fn spatial_axes(call: &mut Call) -> Answer {
    let rank = call.tensor(0)?.dims.len() as i64;
    let axes: Vec<i64> = (2..rank).collect();
    let mut out = call.room::<i64>(vec![axes.len()])?;
    out.items_mut().copy_from_slice(&axes);
    call.set_tensor(0, out);
    Ok(())
}

/// Words: whether an extent 0 means 0 and not the input's. Inputs: data, shape.
fn reshape(call: &mut Call) -> Answer {
    let keeps_zeros = call.words.flag();
    let data = call.tensor(0)?;
    let wanted = call.numbers(1)?;
    let mut dims = Dims::new();
    let mut open = None;
    for (i, &extent) in wanted.iter().enumerate() {
        dims.push(match extent {
            -1 if open.replace(i).is_none() => 1,
            0 if !keeps_zeros && i < data.dims.len() => data.dims[i],
            0.. => extent as usize,
            _ => return Err(misfit(&data, &wanted)),
        });
    }
    if let Some(i) = open {
        let known = elements(&dims).filter(|&n| n > 0);
        dims[i] = known.map_or(0, |n| data.count() / n);
    }
    if elements(&dims) != Some(data.count()) {
        return Err(misfit(&data, &wanted));
    }
    call.set_tensor(0, data.reshaped(dims));
    Ok(())
}

fn misfit(data: &Tensor, wanted: &[i64]) -> Failure {
    format_dims("it cannot give a tensor of shape ", &data.dims)
        + &format_dims(" the shape ", wanted)
}

/// "the shape [2, 3]"
pub fn format_dims<T: ToString>(before: &str, dims: &[T]) -> String {
    let texts: Vec<String> = dims.iter().map(T::to_string).collect();
    [before, "[", &texts.join(", "), "]"].concat()
}

/// Inputs: data, axes (of the result, where its extents are 1).
fn unsqueeze(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let axes = call.numbers(1)?;
    let rank = data.dims.len() + axes.len();
    let mut is_new = vec![false; rank];
    for &given in &axes {
        is_new[axis(given, rank)?] = true;
    }
    let mut rest = data.dims.iter();
    let dims = is_new
        .iter()
        .map(|&new| if new { Some(1) } else { rest.next().copied() })
        .collect::<Option<Dims>>()
        .ok_or("its axes repeat")?;
    call.set_tensor(0, data.reshaped(dims));
    Ok(())
}

/// Inputs: data, axes (all of extent 1 where they are left out).
fn squeeze(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let rank = data.dims.len();
    let mut goes: Vec<bool> = data.dims.iter().map(|&d| d == 1).collect();
    if call.has(1) {
        let mut named = vec![false; rank];
        for &given in &call.numbers(1)? {
            named[axis(given, rank)?] = true;
        }
        if named.iter().zip(&goes).any(|(&named, &one)| named && !one) {
            return Err("an axis to squeeze is not of extent 1".to_string());
        }
        goes = named;
    }
    let kept = data.dims.iter().zip(&goes).filter(|(_, &goes)| !goes);
    let dims = kept.map(|(&d, _)| d).collect();
    call.set_tensor(0, data.reshaped(dims));
    Ok(())
}

/// Words: the axis before which all become one, and from which on.
fn flatten(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let given = call.words.int();
    let rank = data.dims.len() as i32;
    let at = (if given < 0 { given + rank } else { given }).clamp(0, rank) as usize;
    let (outer, inner) = data.dims.split_at(at);
    let dims = vec![outer.iter().product(), inner.iter().product()];
    call.set_tensor(0, data.reshaped(dims));
    Ok(())
}

/// Words: the axis. Inputs: any number of tensors.
fn concat<T: Copy>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let parts: Vec<Tensor> = (0..call.input_count())
        .map(|i| call.tensor(i))
        .collect::<Result<_, _>>()?;
    let joined = join::<T>(&parts, given.into())?;
    call.set_tensor(0, joined);
    Ok(())
}

/// Tensors one after the other along an axis.
pub fn join<T: Copy>(parts: &[Tensor], given: i64) -> Result<Tensor, Failure> {
    let first = parts.first().ok_or("there is nothing to join")?;
    let at = axis(given, first.dims.len())?;
    let mut dims = first.dims.clone();
    for part in &parts[1..] {
        let fits = part.dims.len() == dims.len()
            && (0..dims.len()).all(|i| i == at || part.dims[i] == dims[i]);
        if !fits {
            let (a, b) = (format_dims("", &first.dims), format_dims("", &part.dims));
            return Err(["the shapes ", &a, " and ", &b, " do not fit"].concat());
        }
        dims[at] += part.dims[at];
    }
    let outer: usize = dims[..at].iter().product();
    let mut out = crate::dynamic::call::room(dims, std::mem::size_of::<T>())?;
    let row: usize = out.dims[at..].iter().product();
    let mut start = 0;
    for part in parts {
        let length: usize = part.dims[at..].iter().product();
        let (from, to) = (part.items::<T>(), out.items_mut::<T>());
        for o in 0..outer {
            let target = o * row + start;
            to[target..target + length].copy_from_slice(&from[o * length..(o + 1) * length]);
        }
        start += length;
    }
    Ok(out)
}

/// Words: rank, then for each axis of the result the input's; rank 0 turns all around.
fn transpose<T: Copy>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let mut order = call.words.counted().to_vec();
    if order.is_empty() {
        order = (0..data.dims.len() as i32).rev().collect();
    }
    if order.len() != data.dims.len() {
        return Err("its permutation does not fit its input".to_string());
    }
    let strides = strides(&data.dims);
    let dims: Dims = order.iter().map(|&a| data.dims[a as usize]).collect();
    let steps: Vec<usize> = order.iter().map(|&a| strides[a as usize]).collect();
    let mut out = call.room::<T>(dims)?;
    gather_strided(data.items::<T>(), 0, &steps, &mut out);
    call.set_tensor(0, out);
    Ok(())
}

/// Elements between neighbours along each axis of a dense tensor.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        steps[i - 1] = steps[i] * dims[i];
    }
    steps
}

/// Fills `out` with elements of `from` that lie `steps` apart along its axes.
pub fn gather_strided<T: Copy>(from: &[T], start: usize, steps: &[usize], out: &mut Tensor) {
    let dims = out.dims.clone();
    if elements(&dims) == Some(0) {
        return;
    }
    let (inner, step) = match dims.last() {
        Some(&extent) => (extent, steps[dims.len() - 1]),
        None => (1, 0),
    };
    let mut index = vec![0; dims.len().saturating_sub(1)];
    let mut place = start;
    for row in out.items_mut::<T>().chunks_exact_mut(inner) {
        for (k, item) in row.iter_mut().enumerate() {
            *item = from[place + k * step];
        }
        for a in (0..index.len()).rev() {
            index[a] += 1;
            place += steps[a];
            if index[a] < dims[a] {
                break;
            }
            place -= steps[a] * dims[a];
            index[a] = 0;
        }
    }
}

/// Inputs: data, shape; both broadcast to what is common.
fn expand<T: Copy>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let wanted: Dims = call
        .numbers(1)?
        .iter()
        .map(|&n| n.max(0) as usize)
        .collect();
    let dims = broadcast(&data.dims, &wanted)?;
    let steps = broadcast_steps(&data.dims, dims.len());
    let mut out = call.room::<T>(dims)?;
    gather_strided(data.items::<T>(), 0, &steps, &mut out);
    call.set_tensor(0, out);
    Ok(())
}

/// The common shape of two (numpy's rules).
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Dims, Failure> {
    let rank = a.len().max(b.len());
    let extent = |dims: &[usize], i: usize| match (i + dims.len()).checked_sub(rank) {
        Some(at) => dims[at],
        None => 1,
    };
    (0..rank)
        .map(|i| match (extent(a, i), extent(b, i)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => {
                let (a, b) = (format_dims("", a), format_dims("", b));
                Err(["the shapes ", &a, " and ", &b, " do not broadcast"].concat())
            }
        })
        .collect()
}

/// Elements between neighbours of a tensor that is broadcast to `rank` axes: 0 where it repeats.
pub fn broadcast_steps(dims: &[usize], rank: usize) -> Vec<usize> {
    let own = strides(dims);
    let mut steps = vec![0; rank - dims.len()];
    steps.extend(
        dims.iter()
            .zip(own)
            .map(|(&d, s)| if d == 1 { 0 } else { s }),
    );
    steps
}

/// Inputs: data, repeats along each axis.
fn tile<T: Copy>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let repeats = call.numbers(1)?;
    let rank = data.dims.len();
    if repeats.len() != rank {
        return Err("it has not one repeat per axis".to_string());
    }
    // Each axis is two: how often, and what; then they are one again.
    let own = strides(&data.dims);
    let (mut pairs, mut steps) = (Dims::new(), Vec::new());
    for k in 0..rank {
        pairs.extend([repeats[k].max(0) as usize, data.dims[k]]);
        steps.extend([0, own[k]]);
    }
    let dims = pairs
        .chunks_exact(2)
        .map(|pair| pair[0].checked_mul(pair[1]));
    let dims: Option<Dims> = dims.collect();
    let mut out = call.room::<T>(pairs)?;
    gather_strided(data.items::<T>(), 0, &steps, &mut out);
    call.set_tensor(
        0,
        out.reshaped(dims.ok_or("its result is larger than memory")?),
    );
    Ok(())
}

export!("identity", identity);
export!("shape", shape);
export!("size", size);
export!("spatial_axes", spatial_axes);
export!("reshape", reshape);
export!("unsqueeze", unsqueeze);
export!("squeeze", squeeze);
export!("flatten", flatten);
export!("concat", concat, u8 u16 u32 u64);
export!("transpose", transpose, u8 u16 u32 u64);
export!("expand", expand, u8 u16 u32 u64);
export!("tile", tile, u8 u16 u32 u64);
