//! Transposed convolutions over one or two axes: a product for every tap, put where the tap stands.

use super::chain::Epilogue;
use super::panels::{self, multiply, pack, packed_columns, Rows, Start};
use crate::dynamic::call::{room, Answer, Call};
use crate::dynamic::ops::conv::{Placement, PlacementWords};
use std::arch::wasm32::{i32x4_shuffle, v128};

/// Floats of packed columns and of products, which stay in the second-level cache.
const BLOCK: usize = 40 * 1024;

/// Words: how many axes the result has at least, groups, those of `PlacementWords`, features of a
/// group, the window's extents. Inputs: data, weights (groups; features and taps; channels), bias
/// (may be left out), then the chain's operands after the first.
fn conv_transpose(call: &mut Call) -> Answer {
    let least = call.words.size();
    let groups = call.words.size().max(1);
    let words = PlacementWords::take(call);
    let features = call.words.size();
    let kernel: Vec<usize> = (0..words.spatial()).map(|_| call.words.size()).collect();
    let (data, weights) = (call.tensor(0)?, call.tensor(1)?);
    let channels = weights.dims[2];
    if data.dims.len() != kernel.len() + 2 || data.dims[1] != channels * groups {
        return Err("its weights do not fit its input".to_string());
    }
    let extents = &data.dims[2..];
    let job = Scatter::new(words.place(extents, &kernel), extents, &kernel);
    let dims = [&[data.dims[0], groups * features], &job.placement.shape[..]].concat();
    let out = room(dims, 4)?;
    let epilogue = Epilogue::of(call, least, 3, &out.dims, 1, 1)?;
    let bias = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let (area, places) = (job.extents[0] * job.extents[1], job.out[0] * job.out[1]);
    let rows = features * job.taps;
    // Whole rows of the input at a time.
    let lines = (BLOCK / (rows + channels) / job.extents[1].max(1)).clamp(1, job.extents[0].max(1));
    let most = lines * job.extents[1];
    let packed = room(vec![channels * packed_columns(most) + panels::SLACK], 4)?;
    let products = room(vec![rows * most + panels::SLACK], 4)?;
    let images = if out.count() > 0 {
        data.dims[0] * groups
    } else {
        0
    };
    for image in 0..images {
        let (batch, group) = (image / groups, image % groups);
        unsafe {
            let from = data.start().cast::<f32>().add(image * channels * area);
            let to = out.start().cast::<f32>().add(image * features * places);
            for f in 0..features {
                let start = (bias.as_ref()).map_or(0.0, |b| b.items::<f32>()[group * features + f]);
                std::slice::from_raw_parts_mut(to.add(f * places), places).fill(start);
            }
            for line in (0..job.extents[0]).step_by(lines) {
                let count = lines.min(job.extents[0] - line);
                let columns = count * job.extents[1];
                let from = from.add(line * job.extents[1]);
                pack(from, area, channels, columns, packed.start().cast());
                let place = Rows {
                    a: (weights.start().cast::<f32>()).add(group * rows * channels),
                    a_row: channels,
                    out: products.start().cast(),
                    out_row: columns,
                    count: rows,
                    depth: channels,
                };
                multiply(place, packed.start().cast(), columns, Start::zero())?;
                for f in 0..features {
                    let from = place.out.add(f * job.taps * columns);
                    job.scatter(from, line, count, to.add(f * places));
                }
            }
            let own = group * features..(group + 1) * features;
            epilogue.block(batch, own, 0, places, to, places);
        }
    }
    let out = epilogue.finish(out)?;
    call.set_tensor(0, out);
    Ok(())
}

/// Adds products to where they belong.
struct Scatter {
    placement: Placement,
    /// Of the input, of the window and of the result, as two axes.
    extents: [usize; 2],
    kernel: [usize; 2],
    out: [usize; 2],
    taps: usize,
}

impl Scatter {
    fn new(placement: Placement, extents: &[usize], kernel: &[usize]) -> Scatter {
        let mut placement = placement;
        let two = |values: &[usize]| match values {
            [only] => [1, *only],
            [first, second, ..] => [*first, *second],
            [] => [1, 1],
        };
        let out = two(&placement.shape);
        if extents.len() == 1 {
            placement.strides.insert(0, 1);
            placement.dilations.insert(0, 1);
            placement.begin.insert(0, 0);
        }
        Scatter {
            extents: two(extents),
            kernel: two(kernel),
            out,
            taps: kernel.iter().product(),
            placement,
        }
    }

    /// The products of one feature with some lines of the input.
    unsafe fn scatter(&self, from: *const f32, line: usize, lines: usize, to: *mut f32) {
        let (place, width) = (&self.placement, self.extents[1]);
        for y in 0..lines {
            for tap_y in 0..self.kernel[0] {
                let row = (line + y) * place.strides[0] + tap_y * place.dilations[0];
                let row = match row.checked_sub(place.begin[0]) {
                    Some(row) if row < self.out[0] => row,
                    _ => continue,
                };
                let to = to.add(row * self.out[1]);
                let tap = |x: usize| {
                    let tap = tap_y * self.kernel[1] + x;
                    from.add((tap * lines + y) * width)
                };
                if self.is_double() {
                    add_pairs(tap(0), tap(1), to, width);
                    continue;
                }
                for tap_x in 0..self.kernel[1] {
                    let shift = tap_x * place.dilations[1];
                    self.add_row(tap(tap_x), shift, to);
                }
            }
        }
    }

    /// Whether the products of a line are every second element each.
    fn is_double(&self) -> bool {
        let place = &self.placement;
        place.strides[1] == 2
            && self.kernel[1] == 2
            && place.dilations[1] == 1
            && place.begin[1] == 0
            && self.out[1] == 2 * self.extents[1]
    }

    unsafe fn add_row(&self, from: *const f32, shift: usize, to: *mut f32) {
        let (stride, begin) = (self.placement.strides[1], self.placement.begin[1]);
        // The first place inside, and the first beyond.
        let until = |limit: usize| (limit.saturating_sub(shift) + stride - 1) / stride;
        let high = until(self.out[1] + begin).min(self.extents[1]);
        for x in until(begin)..high {
            *to.add(x * stride + shift - begin) += *from.add(x);
        }
    }
}

/// Adds a to the even and b to the odd elements.
unsafe fn add_pairs(a: *const f32, b: *const f32, to: *mut f32, count: usize) {
    use std::arch::wasm32::f32x4_add;
    let whole = count & !3;
    for i in (0..whole).step_by(4) {
        let (a, b) = (
            a.add(i).cast::<v128>().read_unaligned(),
            b.add(i).cast::<v128>().read_unaligned(),
        );
        let to = to.add(2 * i).cast::<v128>();
        let low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
        let high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
        to.write_unaligned(f32x4_add(to.read_unaligned(), low));
        let to = to.add(1);
        to.write_unaligned(f32x4_add(to.read_unaligned(), high));
    }
    for i in whole..count {
        *to.add(2 * i) += *a.add(i);
        *to.add(2 * i + 1) += *b.add(i);
    }
}

export!("fast_conv_transpose", conv_transpose);
