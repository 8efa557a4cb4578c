//! Reductions along axes, and what is computed along one axis.

use crate::dynamic::call::{axis, room, Answer, Call, Failure};
use crate::dynamic::ops::select::around;
use crate::dynamic::ops::unary::Real;
use crate::dynamic::value::{Dims, Tensor};
use crate::operators::number::Number;

/// Sums of so many elements side by side: one after the other would round more, and take longer.
const LANES: usize = 8;

/// Words: whether the axes stay with extent 1, whether no axes mean none. Inputs: data, axes (all
/// where they are left out).
pub fn reduced<T: Number>(
    call: &mut Call,
    start: T,
    combine: impl Fn(T, T) -> T + Copy,
) -> Result<(Tensor, usize), Failure> {
    let (keeps, no_op) = (call.words.flag(), call.words.flag());
    let data = call.tensor(0)?;
    let rank = data.dims.len();
    let axes = match call.has(1) {
        true => call.numbers(1)?,
        false => Vec::new(),
    };
    let mut goes = vec![axes.is_empty() && !no_op; rank];
    for &given in &axes {
        goes[axis(given, rank)?] = true;
    }
    let kept = |k: usize| if goes[k] { 1 } else { data.dims[k] };
    let full: Dims = (0..rank).map(kept).collect();
    let mut out = room(full.clone(), data.item)?;
    out.items_mut::<T>().fill(start);
    let members: usize = (0..rank)
        .filter(|&k| goes[k])
        .map(|k| data.dims[k])
        .product();
    if data.count() > 0 {
        fold(&data, &goes, out.items_mut::<T>(), start, combine);
    }
    let dims = match keeps {
        true => full,
        false => (0..rank).filter(|&k| !goes[k]).map(kept).collect(),
    };
    Ok((out.reshaped(dims), members))
}

/// Combines every element of `data` into its place in `out`.
fn fold<T: Number>(
    data: &Tensor,
    goes: &[bool],
    out: &mut [T],
    start: T,
    combine: impl Fn(T, T) -> T + Copy,
) {
    // Axes of one kind that are neighbours are one.
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (&extent, &goes) in data.dims.iter().zip(goes) {
        match groups.last_mut() {
            Some((total, kind)) if *kind == goes || extent == 1 => *total *= extent,
            _ => groups.push((extent, goes)),
        }
    }
    let (inner, inner_goes) = groups.pop().unwrap_or((1, false));
    let mut steps = vec![0; groups.len()];
    let mut step = if inner_goes { 1 } else { inner };
    for (k, &(extent, goes)) in groups.iter().enumerate().rev() {
        if !goes {
            steps[k] = step;
            step *= extent;
        }
    }
    let mut index = vec![0; groups.len()];
    let mut place = 0;
    for row in data.items::<T>().chunks_exact(inner) {
        if inner_goes {
            out[place] = combine(out[place], row_of(row, start, combine));
        } else {
            let target = out[place..place + inner].iter_mut();
            target.zip(row).for_each(|(o, &x)| *o = combine(*o, x));
        }
        for k in (0..groups.len()).rev() {
            index[k] += 1;
            place += steps[k];
            if index[k] < groups[k].0 {
                break;
            }
            place -= steps[k] * groups[k].0;
            index[k] = 0;
        }
    }
}

fn row_of<T: Number>(row: &[T], start: T, combine: impl Fn(T, T) -> T + Copy) -> T {
    let mut lanes = [start; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        // By index, which becomes vectors; an iterator of pairs is called.
        #[allow(clippy::needless_range_loop)]
        for i in 0..LANES {
            lanes[i] = combine(lanes[i], chunk[i]);
        }
    }
    lanes.iter().chain(rest).fold(start, |a, &b| combine(a, b))
}

pub trait Bounded: Number {
    const LOWEST: Self;
    const HIGHEST: Self;
    fn divided(self, count: usize) -> Self;
}

macro_rules! bounded {
    ($($dtype:ident $lowest:expr, $highest:expr;)+) => {
        $(impl Bounded for $dtype {
            const LOWEST: Self = $lowest;
            const HIGHEST: Self = $highest;
            fn divided(self, count: usize) -> Self {
                (self as f64 / count as f64) as $dtype
            }
        })+
    };
}

bounded!(
    f32 f32::NEG_INFINITY, f32::INFINITY;
    f64 f64::NEG_INFINITY, f64::INFINITY;
    i8 i8::MIN, i8::MAX;
    u8 u8::MIN, u8::MAX;
    i32 i32::MIN, i32::MAX;
    i64 i64::MIN, i64::MAX;
    u32 u32::MIN, u32::MAX;
    u64 u64::MIN, u64::MAX;
);

fn sum<T: Number>(call: &mut Call) -> Answer {
    let (out, _) = reduced(call, T::ZERO, T::plus)?;
    call.set_tensor(0, out);
    Ok(())
}

fn product<T: Number>(call: &mut Call) -> Answer {
    let (out, _) = reduced(call, T::ONE, T::times)?;
    call.set_tensor(0, out);
    Ok(())
}

fn largest<T: Bounded>(call: &mut Call) -> Answer {
    let (out, _) = reduced(call, T::LOWEST, T::larger)?;
    call.set_tensor(0, out);
    Ok(())
}

fn smallest<T: Bounded>(call: &mut Call) -> Answer {
    let (out, _) = reduced(call, T::HIGHEST, T::smaller)?;
    call.set_tensor(0, out);
    Ok(())
}

fn mean<T: Bounded>(call: &mut Call) -> Answer {
    let (mut out, members) = reduced(call, T::ZERO, T::plus)?;
    let items = out.items_mut::<T>().iter_mut();
    items.for_each(|x| *x = x.divided(members));
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the axis, whether it stays, whether the last of equals counts, whether the largest.
fn arg_extreme<T: Number>(call: &mut Call) -> Answer {
    let (given, keeps) = (call.words.int(), call.words.flag());
    let (last, is_max) = (call.words.flag(), call.words.flag());
    let data = call.tensor(0)?;
    let at = axis(given.into(), data.dims.len())?;
    let extent = data.dims[at];
    if extent == 0 {
        return Err("its axis has no elements".to_string());
    }
    let (outer, inner) = around(&data.dims, at);
    let mut dims = data.dims.clone();
    dims[at] = 1;
    if !keeps {
        dims.remove(at);
    }
    let mut out = call.room::<i64>(dims)?;
    let (from, to) = (data.items::<T>(), out.items_mut::<i64>());
    for o in 0..outer {
        for i in 0..inner {
            let mut best = 0;
            for k in 1..extent {
                let (x, y) = (
                    from[(o * extent + k) * inner + i],
                    from[(o * extent + best) * inner + i],
                );
                if (if is_max { x > y } else { x < y }) || (last && x == y) {
                    best = k;
                }
            }
            to[o * inner + i] = best as i64;
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the axis, what (0 softmax, 1 its logarithm, 2 one for the largest).
fn softmax<T: Real>(call: &mut Call) -> Answer {
    let (given, kind) = (call.words.int(), call.words.int());
    let data = call.tensor(0)?;
    let at = match data.dims.len() {
        0 => return Err("its input is a scalar".to_string()),
        rank => axis(given.into(), rank)?,
    };
    let extent = data.dims[at];
    let (outer, inner) = around(&data.dims, at);
    let mut out = call.room::<T>(data.dims.clone())?;
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    for o in 0..outer {
        for i in 0..inner {
            let place = |k: usize| (o * extent + k) * inner + i;
            if extent == 0 {
                continue;
            }
            let first = from[place(0)];
            let top = (1..extent).fold(first, |top, k| top.larger(from[place(k)]));
            if kind == 2 {
                let best = (0..extent).find(|&k| from[place(k)] == top);
                for k in 0..extent {
                    to[place(k)] = if Some(k) == best { T::ONE } else { T::ZERO };
                }
                continue;
            }
            let mut total = T::ZERO;
            for k in 0..extent {
                let power = from[place(k)].less(top).exp();
                to[place(k)] = power;
                total = total.plus(power);
            }
            if kind == 1 {
                let shift = top.plus(total.through(f32::ln, f64::ln));
                (0..extent).for_each(|k| to[place(k)] = from[place(k)].less(shift));
            } else {
                (0..extent).for_each(|k| to[place(k)] = to[place(k)].over(total));
            }
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("reduce_sum", sum, f32 f64 i32 i64 u32 u64);
export!("reduce_prod", product, f32 f64 i32 i64 u32 u64);
export!("reduce_max", largest, f32 f64 i8 u8 i32 i64 u32 u64);
export!("reduce_min", smallest, f32 f64 i8 u8 i32 i64 u32 u64);
export!("reduce_mean", mean, f32 f64 i32 i64 u32 u64);
export!("arg", arg_extreme, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("softmax", softmax, f32 f64);
