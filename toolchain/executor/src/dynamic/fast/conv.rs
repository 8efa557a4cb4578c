//! Convolutions over one or two axes.

use super::chain::Epilogue;
use super::image::View;
use super::kernels::wgk_taps;
use super::panels::{self, multiply, multiply_vector, packed_columns, width_at, Rows, Start};
use super::winograd::{Shape, Winograd};
use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::window::{Window, Words};
use crate::dynamic::value::Tensor;
use std::arch::wasm32::v128;

/// Floats of packed columns and of the result that they give, which stay in the second-level cache.
const BLOCK: usize = 40 * 1024;

/// Words: how many axes the result has at least, whether Winograd's algorithm may be used, groups,
/// then those of a window of one or two axes. Inputs: data, weights, bias (may be left
/// out), then the chain's operands after the first.
fn conv(call: &mut Call) -> Answer {
    let least = call.words.size();
    let may_transform = call.words.flag();
    let groups = call.words.size().max(1);
    let words = Words::take(call);
    let (data, weights) = (call.tensor(0)?, call.tensor(1)?);
    let rank = data.dims.len();
    if !(3..=4).contains(&rank)
        || weights.dims.len() != rank
        || data.dims[1] != weights.dims[1] * groups
    {
        return Err("its weights do not fit its input".to_string());
    }
    let window = Window::new(words, &data.dims[2..], &weights.dims[2..])?;
    let dims = [&[data.dims[0], weights.dims[0]], &window.out[..]].concat();
    let bias = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let epilogue = Epilogue::of(call, least, 3, &dims, 1, 1)?;
    let mut job = Job {
        images: data.dims[0] * groups,
        groups,
        channels: weights.dims[1],
        features: weights.dims[0] / groups,
        area: window.extents.iter().product(),
        places: window.out.iter().product(),
        data,
        weights,
        bias,
        epilogue,
        out: room(dims, 4)?,
    };
    if job.out.count() > 0 {
        unsafe {
            match (job.channels, job.winograd(&window)) {
                (1, _) if groups > 1 => job.depthwise(&View::new(&window, 4, 0.0))?,
                (_, Some(shape)) if may_transform => job.transformed(shape)?,
                _ => job.dense(&View::new(&window, 0, 0.0))?,
            }
        }
    }
    let out = job.epilogue.finish(job.out)?;
    call.set_tensor(0, out);
    Ok(())
}

/// One call; what is said of channels and features holds for one group.
struct Job {
    /// Batch elements times groups.
    images: usize,
    groups: usize,
    channels: usize,
    features: usize,
    area: usize,
    places: usize,
    data: Tensor,
    weights: Tensor,
    bias: Option<Tensor>,
    epilogue: Epilogue,
    out: Tensor,
}

impl Job {
    fn start(&self, feature: usize) -> f32 {
        let bias = self.bias.as_ref();
        bias.map_or(0.0, |bias| bias.items::<f32>()[feature])
    }

    /// Every channel has features of its own.
    unsafe fn depthwise(&mut self, view: &View) -> Result<(), Failure> {
        let direct = view.direct_taps();
        let offsets: Vec<i32> = match &direct {
            Some(taps) => taps.iter().map(|&tap| 4 * tap as i32).collect(),
            None => view.taps.iter().map(|&tap| 4 * tap as i32).collect(),
        };
        let pitch = if direct.is_some() {
            view.out[1]
        } else {
            view.pitch
        };
        let with_rows = !view.sees_always();
        let laid_out = view.room(1)?;
        let (rows, columns) = (view.out[0], view.out[1]);
        let narrow = room(vec![rows * 4], 4)?;
        for image in 0..self.images {
            let mut source = self.data.start().cast::<f32>().add(image * self.area) as *const f32;
            if !view.is_plain && direct.is_none() {
                view.copy(source, laid_out.start().cast(), with_rows);
                source = laid_out.start().cast();
            }
            for f in 0..self.features {
                let number = image * self.features + f;
                let feature = number % (self.groups * self.features);
                let out = self.out.start().cast::<f32>().add(number * self.places);
                let (to, step) = match columns {
                    0..=3 => (narrow.start().cast(), 4),
                    _ => (out, columns),
                };
                let weights = self.weights.start().cast::<f32>();
                let weights = weights.add(feature * offsets.len());
                let wide = offsets.len() / view.rows_of_window();
                for &[row, count, low, high] in &view.bands {
                    wgk_taps(
                        source.add(row * pitch),
                        4 * pitch,
                        to.add(row * step),
                        4 * step,
                        count,
                        step.min(columns.max(4)),
                        (high - low) * wide,
                        offsets.as_ptr().add(low * wide),
                        weights.add(low * wide),
                        &self.start(feature),
                    );
                }
                if let Some(taps) = &direct {
                    let start = self.start(feature);
                    for band in &view.bands {
                        correct_ends(source, taps, weights, band, out, columns, start);
                    }
                }
                if columns < 4 {
                    for row in 0..rows {
                        let from = narrow.start().cast::<f32>().add(4 * row);
                        (out.add(row * columns)).copy_from_nonoverlapping(from, columns);
                    }
                }
                let batch = image / self.groups;
                (self.epilogue).block(batch, feature..feature + 1, 0, self.places, out, 0);
            }
        }
        Ok(())
    }

    /// What Winograd's algorithm would do, if it would be quicker.
    fn winograd(&self, window: &Window) -> Option<Shape> {
        let two = |values: &[usize]| <[usize; 2]>::try_from(values).ok();
        let shape = Shape {
            channels: self.channels,
            features: self.features,
            extents: two(&window.extents)?,
            begin: two(&window.begin)?,
            out: two(&window.out)?,
        };
        let fits = window.kernel == [3, 3] && window.strides == [1, 1];
        (fits && window.dilations == [1, 1] && shape.is_worthwhile()).then_some(shape)
    }

    unsafe fn transformed(&mut self, shape: Shape) -> Result<(), Failure> {
        let all = self.groups * self.features;
        for group in 0..self.groups {
            let own = group * self.features..(group + 1) * self.features;
            let weights = self.weights.start().cast::<f32>();
            let kernel = Winograd::new(shape, weights.add(own.start * self.channels * 9))?;
            for batch in 0..self.images / self.groups {
                let image = batch * self.groups + group;
                let from = (self.data.start().cast::<f32>()).add(image * self.channels * self.area);
                let out =
                    (self.out.start().cast::<f32>()).add((batch * all + own.start) * self.places);
                kernel.run(from, out, |feature| self.start(own.start + feature))?;
                (self.epilogue).block(batch, own.clone(), 0, self.places, out, self.places);
            }
        }
        Ok(())
    }

    unsafe fn dense(&mut self, view: &View) -> Result<(), Failure> {
        let depth = self.channels * view.taps.len();
        let laid_out = match view.is_plain {
            true => None,
            false => Some(view.room(self.channels)?),
        };
        let block = (BLOCK / (depth + self.features)).max(16) & !15;
        let packed = room(
            vec![depth * packed_columns(block.min(self.places)) + panels::SLACK],
            4,
        )?;
        let spread: Vec<f32> = (0..self.groups * self.features)
            .flat_map(|feature| [self.start(feature); 4])
            .collect();
        for image in 0..self.images {
            let (batch, group) = (image / self.groups, image % self.groups);
            let source = self.data.start().cast::<f32>();
            let source = source.add(image * self.channels * self.area) as *const f32;
            let source = match &laid_out {
                None => source,
                Some(room) => {
                    for channel in 0..self.channels {
                        let to = room.start().cast::<f32>().add(channel * view.plane);
                        view.copy(source.add(channel * self.area), to, true);
                    }
                    room.start().cast::<f32>() as *const f32
                }
            };
            let first = group * self.features;
            let out = self.out.start().cast::<f32>();
            let out = out.add((batch * self.groups * self.features + first) * self.places);
            let rows = Rows {
                a: (self.weights.start().cast::<f32>()).add(first * depth),
                a_row: depth,
                out,
                out_row: self.places,
                count: self.features,
                depth,
            };
            let to: *mut f32 = packed.start().cast();
            if self.places == 1 {
                self.gather(view, source, to);
                multiply_vector(rows, to, |row| self.start(first + row));
                continue;
            }
            for begin in (0..self.places).step_by(block) {
                let count = block.min(self.places - begin);
                self.pack(view, source, begin, count, to);
                let out = out.add(begin);
                let start = Start::per_row(&spread[4 * first..]);
                multiply(Rows { out, ..rows }, to, count, start)?;
                let features = first..first + self.features;
                (self.epilogue).block(batch, features, begin, count, out, self.places);
            }
        }
        Ok(())
    }

    /// What the window sees at its only place.
    unsafe fn gather(&self, view: &View, source: *const f32, to: *mut f32) {
        let mut to = to;
        for channel in 0..self.channels {
            for tap in &view.taps {
                *to = *source.add(channel * view.plane + tap);
                to = to.add(1);
            }
        }
    }

    /// Panels of what the window sees at some places: a row per channel and tap.
    unsafe fn pack(
        &self,
        view: &View,
        source: *const f32,
        begin: usize,
        count: usize,
        to: *mut f32,
    ) {
        let depth = self.channels * view.taps.len();
        let mut pieces: Vec<[usize; 2]> = Vec::with_capacity(16);
        let mut column = 0;
        while column < count {
            let width = width_at(column, count);
            let to = to.add(column * depth);
            pieces.clear();
            // Where the panel's elements are: floats from a tap's place, and how many vectors follow.
            let (mut done, wanted) = (0, width.min(count - column));
            while done < wanted {
                let place = begin + column + done;
                let (y, x) = (place / view.out[1], place % view.out[1]);
                let length = (view.out[1] - x).min(wanted - done);
                pieces.push([y * view.pitch + x, done]);
                done += length;
            }
            match (&pieces[..], width) {
                ([[from, _]], 16) => self.copy_whole::<4>(view, source.add(*from), to),
                ([[from, _]], 8) => self.copy_whole::<2>(view, source.add(*from), to),
                _ => self.copy_pieces(view, source, &pieces, width, to),
            }
            column += width;
        }
    }

    unsafe fn copy_whole<const VECTORS: usize>(
        &self,
        view: &View,
        source: *const f32,
        to: *mut f32,
    ) {
        let mut to = to.cast::<v128>();
        for channel in 0..self.channels {
            let source = source.add(channel * view.plane);
            for tap in &view.taps {
                let from = source.add(*tap).cast::<v128>();
                let vectors: [v128; VECTORS] = from.cast::<[v128; VECTORS]>().read_unaligned();
                to.cast::<[v128; VECTORS]>().write_unaligned(vectors);
                to = to.add(VECTORS);
            }
        }
    }

    /// Each piece is copied by whole vectors, over what the next one writes.
    unsafe fn copy_pieces(
        &self,
        view: &View,
        source: *const f32,
        pieces: &[[usize; 2]],
        width: usize,
        to: *mut f32,
    ) {
        let mut to = to;
        for channel in 0..self.channels {
            let source = source.add(channel * view.plane);
            for tap in &view.taps {
                let source = source.add(*tap);
                for (i, &[from, at]) in pieces.iter().enumerate() {
                    let end = pieces.get(i + 1).map_or(width, |next| next[1]);
                    for k in (at..end).step_by(4) {
                        let four = source.add(from + k - at).cast::<v128>().read_unaligned();
                        to.add(k).cast::<v128>().write_unaligned(four);
                    }
                }
                to = to.add(width);
            }
        }
    }
}

/// The first and the last column of some rows, where a window of three columns has one of them beyond
/// the image.
unsafe fn correct_ends(
    source: *const f32,
    taps: &[isize],
    weights: *const f32,
    &[first, count, low, high]: &[usize; 4],
    out: *mut f32,
    columns: usize,
    start: f32,
) {
    for row in first..first + count {
        let (mut left, mut right) = (start, start);
        let begin = source.add(row * columns);
        for y in low..high {
            let (tap, weights) = (begin.offset(taps[3 * y + 1]), weights.add(3 * y));
            left += *weights.add(1) * *tap + *weights.add(2) * *tap.add(1);
            let tap = tap.add(columns - 2);
            right += *weights * *tap + *weights.add(1) * *tap.add(1);
        }
        let out = out.add(row * columns);
        *out = left;
        *out.add(columns - 1) = right;
    }
}

export!("fast_conv", conv);
