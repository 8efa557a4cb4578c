//! Pooling over windows.

use crate::dynamic::call::{Answer, Call};
use crate::dynamic::ops::reduce::Bounded;
use crate::dynamic::ops::unary::Real;
use crate::dynamic::ops::window::{unravel, Window, Words};

/// The words of a window, and its extents before them.
pub fn window(call: &mut Call) -> Result<Window, String> {
    let rank = call.words.size();
    let kernel: Vec<usize> = call.words.ints(rank).iter().map(|&k| k as usize).collect();
    let words = Words::take(call);
    let data = call.tensor(0)?;
    if data.dims.len() != rank + 2 {
        return Err("its input has another rank than its window".to_string());
    }
    Window::new(words, &data.dims[2..], &kernel)
}

/// Calls `visit(place of the output, places of the input)` for every window of one image.
fn slide(window: &Window, mut visit: impl FnMut(usize, &[usize])) {
    let rank = window.out.len();
    let places: usize = window.out.iter().product();
    let taps: usize = window.kernel.iter().product();
    let (mut at, mut tap) = (vec![0; rank], vec![0; rank]);
    let mut members = Vec::with_capacity(taps);
    for place in 0..places {
        unravel(place, &window.out, &mut at);
        members.clear();
        for t in 0..taps {
            unravel(t, &window.kernel, &mut tap);
            let found = (0..rank).try_fold(0, |sum, k| {
                let place = window.place(k, at[k], tap[k])?;
                Some(sum * window.extents[k] + place)
            });
            members.extend(found);
        }
        visit(place, &members);
    }
}

/// Words: whether indices count the first spatial axis fastest, how many spatial axes, the window's
/// extents, then those of a window. Outputs: the largest, where it stands.
fn max_pool<T: Bounded>(call: &mut Call) -> Answer {
    let turned = call.words.flag();
    let window = window(call)?;
    let data = call.tensor(0)?;
    let dims = [&data.dims[..2], &window.out[..]].concat();
    let mut out = call.room::<T>(dims.clone())?;
    let mut indices = call.room::<i64>(if call.wants(1) { dims } else { vec![0] })?;
    let area: usize = window.extents.iter().product();
    let places: usize = window.out.iter().product();
    let images = data.dims[0] * data.dims[1];
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    let wants = call.wants(1);
    slide(&window, |place, members| {
        for image in 0..images {
            let source = &from[image * area..(image + 1) * area];
            let mut best = T::LOWEST;
            let mut found = members.first().copied().unwrap_or(0);
            for &i in members {
                if source[i] > best {
                    best = source[i];
                    found = i;
                }
            }
            to[image * places + place] = best;
            if wants {
                let mut at = vec![0; window.extents.len()];
                unravel(found, &window.extents, &mut at);
                let fast = (0..at.len())
                    .rev()
                    .fold(0, |sum, k| sum * window.extents[k] + at[k]);
                let number = if turned { fast } else { found };
                indices.items_mut::<i64>()[image * places + place] = (image * area + number) as i64;
            }
        }
    });
    call.set_tensor(0, out);
    if wants {
        call.set_tensor(1, indices);
    }
    Ok(())
}

/// Words: whether padding counts, how many spatial axes, the window's extents, then those of a
/// window.
fn average_pool<T: Real>(call: &mut Call) -> Answer {
    let counts_pads = call.words.flag();
    let window = window(call)?;
    let data = call.tensor(0)?;
    let mut out = call.room::<T>([&data.dims[..2], &window.out[..]].concat())?;
    let area: usize = window.extents.iter().product();
    let places: usize = window.out.iter().product();
    let images = data.dims[0] * data.dims[1];
    let (from, to) = (data.items::<T>(), out.items_mut::<T>());
    let mut at = vec![0; window.out.len()];
    slide(&window, |place, members| {
        let mut count = members.len();
        if counts_pads {
            // All of the window that lies on elements or padding; beyond, sizes were rounded up.
            unravel(place, &window.out, &mut at);
            count = (0..at.len())
                .map(|k| padded_taps(&window, k, at[k]))
                .product();
        }
        for image in 0..images {
            let source = &from[image * area..(image + 1) * area];
            let sum = members.iter().fold(T::ZERO, |sum, &i| sum.plus(source[i]));
            to[image * places + place] = sum.over(T::of(count as f64));
        }
    });
    call.set_tensor(0, out);
    Ok(())
}

pub fn padded_taps(window: &Window, k: usize, at: usize) -> usize {
    let limit = window.extents[k] + window.begin[k] + window.end[k];
    (0..window.kernel[k])
        .filter(|tap| at * window.strides[k] + tap * window.dilations[k] < limit)
        .count()
}

export!("max_pool", max_pool, f32 f64 i8 u8);
export!("average_pool", average_pool, f32 f64);
