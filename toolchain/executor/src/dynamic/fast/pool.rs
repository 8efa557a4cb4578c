//! Pooling over one or two axes.

use super::image::View;
use super::kernels::wgk_taps;
use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::pool::{padded_taps, window};
use crate::dynamic::ops::window::Window;
use crate::dynamic::value::Tensor;
use std::arch::wasm32::{f32x4_pmax, v128};

/// Calls `each` with every image as the window sees it, and where its result goes: rows of at least
/// four columns.
fn images(
    data: &Tensor,
    window: &Window,
    padding: f32,
    mut each: impl FnMut(&View, *const f32, *mut f32),
) -> Result<Tensor, Failure> {
    let out = room([&data.dims[..2], &window.out[..]].concat(), 4)?;
    if out.count() == 0 {
        return Ok(out);
    }
    let view = View::new(window, 4, padding);
    let laid_out = view.room(1)?;
    let [rows, columns] = view.out;
    let narrow = room(vec![rows * 4], 4)?;
    let area: usize = window.extents.iter().product();
    for image in 0..data.dims[0] * data.dims[1] {
        unsafe {
            let mut source = data.start().cast::<f32>().add(image * area) as *const f32;
            if !view.is_plain {
                view.copy(source, laid_out.start().cast(), true);
                source = laid_out.start().cast();
            }
            let to = out.start().cast::<f32>().add(image * rows * columns);
            if columns >= 4 {
                each(&view, source, to);
                continue;
            }
            let from: *mut f32 = narrow.start().cast();
            each(&view, source, from);
            for row in 0..rows {
                let (from, to) = (from.add(4 * row), to.add(row * columns));
                to.copy_from_nonoverlapping(from, columns);
            }
        }
    }
    Ok(out)
}

/// Words: those of `max_pool`, with one or two axes. Output: the largest.
fn max_pool(call: &mut Call) -> Answer {
    call.words.flag();
    let window = window(call)?;
    let out = images(
        &call.tensor(0)?,
        &window,
        f32::NEG_INFINITY,
        |view, from, to| {
            let columns = view.out[1].max(4);
            for row in 0..view.out[0] {
                unsafe {
                    let (from, to) = (from.add(row * view.pitch), to.add(row * columns));
                    largest_of_row(from, &view.taps, to, columns);
                }
            }
        },
    )?;
    call.set_tensor(0, out);
    Ok(())
}

/// The last vector may lie upon the one before.
unsafe fn largest_of_row(from: *const f32, taps: &[usize], to: *mut f32, columns: usize) {
    let mut column = 0;
    while column + 16 <= columns {
        let four = |tap: usize| {
            let place = from.add(column + tap).cast::<[v128; 4]>();
            place.read_unaligned()
        };
        let [mut a, mut b, mut c, mut d] = four(taps[0]);
        for &tap in &taps[1..] {
            let next = four(tap);
            a = f32x4_pmax(a, next[0]);
            b = f32x4_pmax(b, next[1]);
            c = f32x4_pmax(c, next[2]);
            d = f32x4_pmax(d, next[3]);
        }
        let place = to.add(column).cast::<[v128; 4]>();
        place.write_unaligned([a, b, c, d]);
        column += 16;
    }
    while column < columns {
        let at = column.min(columns - 4);
        let one = |tap: usize| from.add(at + tap).cast::<v128>().read_unaligned();
        let rest = taps[1..].iter();
        let best = rest.fold(one(taps[0]), |best, &tap| f32x4_pmax(best, one(tap)));
        to.add(at).cast::<v128>().write_unaligned(best);
        column += 4;
    }
}

/// Words: those of `average_pool`, with one or two axes.
fn average_pool(call: &mut Call) -> Answer {
    let counts_pads = call.words.flag();
    let window = window(call)?;
    let axis: Vec<Vec<f32>> = (0..window.out.len())
        .map(|k| {
            (0..window.out[k])
                .map(|at| match counts_pads {
                    true => padded_taps(&window, k, at) as f32,
                    false => (0..window.kernel[k])
                        .filter(|&tap| window.place(k, at, tap).is_some())
                        .count() as f32,
                })
                .collect()
        })
        .collect();
    let ones = vec![1.0; window.kernel.iter().product()];
    let out = images(&call.tensor(0)?, &window, 0.0, |view, from, to| {
        let step = view.out[1].max(4);
        let offsets: Vec<i32> = view.taps.iter().map(|&tap| 4 * tap as i32).collect();
        unsafe {
            wgk_taps(
                from,
                4 * view.pitch,
                to,
                4 * step,
                view.out[0],
                step,
                offsets.len(),
                offsets.as_ptr(),
                ones.as_ptr(),
                &0.0,
            );
            for row in 0..view.out[0] {
                let high = if axis.len() == 2 { axis[0][row] } else { 1.0 };
                for (column, wide) in axis[axis.len() - 1].iter().enumerate() {
                    *to.add(row * step + column) /= high * wide;
                }
            }
        }
    })?;
    call.set_tensor(0, out);
    Ok(())
}

export!("fast_max_pool", max_pool);
export!("fast_average_pool", average_pool);
