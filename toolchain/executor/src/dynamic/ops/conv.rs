//! Convolutions, as matrix products over columns of windows.

use crate::dynamic::call::{room, Answer, Call};
use crate::dynamic::ops::product::multiply_into;
use crate::dynamic::ops::window::{unravel, Window, Words};
use crate::operators::number::Number;

/// Elements of the columns that are made at a time: they stay in the second-level cache.
const COLUMNS: usize = 1 << 16;

/// Words: groups, then those of a window. Inputs: data (batch, channels, ...), weights, bias (may be
/// left out).
fn conv<T: Number + 'static>(call: &mut Call) -> Answer {
    let groups = call.words.size().max(1);
    let words = Words::take(call);
    let (data, weights) = (call.tensor(0)?, call.tensor(1)?);
    let rank = data.dims.len();
    if rank < 3 || weights.dims.len() != rank || data.dims[1] != weights.dims[1] * groups {
        return Err("its weights do not fit its input".to_string());
    }
    let window = Window::new(words, &data.dims[2..], &weights.dims[2..])?;
    let (channels, features) = (weights.dims[1], weights.dims[0] / groups);
    let (area, places): (usize, usize) =
        (window.extents.iter().product(), window.out.iter().product());
    let depth = channels * window.kernel.iter().product::<usize>();
    let dims = [&[data.dims[0], weights.dims[0]], &window.out[..]].concat();
    let mut out = call.room::<T>(dims)?;
    let bias = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let block = (COLUMNS / depth.max(1)).clamp(64, places.max(64)) & !15;
    let mut columns = room(vec![depth * block.min(places)], data.item)?;
    let (from, factors, to) = (
        data.items::<T>(),
        weights.items::<T>(),
        out.items_mut::<T>(),
    );
    for (i, image) in to.chunks_mut((features * places).max(1)).enumerate() {
        let group = i % groups;
        for (f, row) in image.chunks_mut(places.max(1)).enumerate() {
            let start = bias.as_ref().map(|b| b.items::<T>()[group * features + f]);
            row.fill(start.unwrap_or(T::ZERO));
        }
        let source = &from[i * channels * area..(i + 1) * channels * area];
        let factors = &factors[group * features * depth..(group + 1) * features * depth];
        for first in (0..places).step_by(block) {
            let count = block.min(places - first);
            let columns = &mut columns.items_mut::<T>()[..depth * count];
            gather_columns(source, columns, &window, channels, first, count);
            multiply_into(
                factors,
                columns,
                count,
                &mut image[first..],
                places,
                depth,
                count,
            );
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

/// One row per channel and place of the window, one column per place of the output.
fn gather_columns<T: Number>(
    from: &[T],
    columns: &mut [T],
    window: &Window,
    channels: usize,
    first: usize,
    count: usize,
) {
    let rank = window.out.len();
    let area: usize = window.extents.iter().product();
    let taps: usize = window.kernel.iter().product();
    let last = window.out[rank - 1];
    let mut tap = vec![0; rank];
    let mut at = vec![0; rank];
    for (row, line) in columns.chunks_mut(count).enumerate() {
        let (channel, number) = (row / taps, row % taps);
        debug_assert!(channel < channels);
        unravel(number, &window.kernel, &mut tap);
        let image = &from[channel * area..(channel + 1) * area];
        let mut done = 0;
        while done < count {
            // One line of the output at a time.
            unravel(first + done, &window.out, &mut at);
            let length = (last - at[rank - 1]).min(count - done);
            let part = &mut line[done..done + length];
            done += length;
            let base = (0..rank - 1).try_fold(0, |base, k| {
                window
                    .place(k, at[k], tap[k])
                    .map(|p| base * window.extents[k] + p)
            });
            match base {
                None => part.fill(T::ZERO),
                Some(base) => {
                    let line = &image[base * window.extents[rank - 1]..];
                    copy_line(line, part, window, at[rank - 1], tap[rank - 1]);
                }
            }
        }
    }
}

/// The elements of one input line under one place of the window, zeros beyond its ends.
fn copy_line<T: Number>(line: &[T], part: &mut [T], window: &Window, at: usize, tap: usize) {
    let k = window.out.len() - 1;
    let (stride, extent) = (window.strides[k], window.extents[k]);
    let shift = at * stride + tap * window.dilations[k];
    let begin = window.begin[k];
    // The first place inside, and the first beyond.
    let low = (begin.saturating_sub(shift) + stride - 1) / stride;
    let high = ((extent + begin).saturating_sub(shift) + stride - 1) / stride;
    let (low, high) = (
        low.min(part.len()),
        high.min(part.len()).max(low.min(part.len())),
    );
    part[..low].fill(T::ZERO);
    part[high..].fill(T::ZERO);
    if low == high {
        return;
    }
    let start = shift + low * stride - begin;
    let inside = &mut part[low..high];
    if stride == 1 {
        inside.copy_from_slice(&line[start..start + inside.len()]);
    } else {
        let from = line[start..].iter().step_by(stride);
        inside.iter_mut().zip(from).for_each(|(to, &x)| *to = x);
    }
}

/// Where a transposed convolution puts what it makes of an element: at the element's place times the
/// stride, plus the tap's place in the window, less the padding.
pub struct Placement {
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub begin: Vec<usize>,
    /// The result's extents.
    pub shape: Vec<usize>,
}

/// A transposed convolution's words after the groups; see `conv_transpose`.
pub struct PlacementWords {
    auto: i32,
    lists: Vec<Vec<usize>>,
}

impl PlacementWords {
    pub fn take(call: &mut Call) -> PlacementWords {
        let spatial = call.words.size();
        let auto = call.words.int();
        let mut list = || -> Vec<usize> {
            let words = call.words.ints(spatial);
            words.iter().map(|&word| word.max(0) as usize).collect()
        };
        PlacementWords {
            auto,
            lists: (0..6).map(|_| list()).collect(),
        }
    }

    /// How many axes the window has.
    pub fn spatial(&self) -> usize {
        self.lists[0].len()
    }

    pub fn place(self, extents: &[usize], kernel: &[usize]) -> Placement {
        let mut lists = self.lists.into_iter();
        let mut list = || lists.next().unwrap_or_default();
        let (strides, dilations, mut begin, end) = (list(), list(), list(), list());
        let (extra, wanted) = (list(), list());
        let mut shape = Vec::new();
        for k in 0..extents.len() {
            let span = extents[k].saturating_sub(1) * strides[k]
                + extra[k]
                + (kernel[k].max(1) - 1) * dilations[k]
                + 1;
            let target = match (wanted[k], self.auto) {
                (0, 0) => span.saturating_sub(begin[k] + end[k]),
                (0, 1) => span,
                (0, _) => extents[k] * strides[k],
                (extent, _) => extent,
            };
            if wanted[k] > 0 || self.auto > 1 {
                let total = span.saturating_sub(target);
                let less = total / 2;
                begin[k] = if self.auto == 2 { less } else { total - less };
            }
            shape.push(target);
        }
        Placement {
            strides,
            dilations,
            begin,
            shape,
        }
    }
}

/// Words: groups, how many spatial axes, whether automatic padding wants the output to be the input
/// times the stride (and more at the beginning), then per axis: stride, dilation, pad before, pad
/// after, output padding, output extent (0: as the others say). Inputs: data, weights (channels,
/// features, ...), bias (may be left out).
fn conv_transpose<T: Number + 'static>(call: &mut Call) -> Answer {
    let groups = call.words.size().max(1);
    let words = PlacementWords::take(call);
    let spatial = words.spatial();
    let (data, weights) = (call.tensor(0)?, call.tensor(1)?);
    if data.dims.len() != spatial + 2 || weights.dims.len() != spatial + 2 {
        return Err("its input has another rank than its window".to_string());
    }
    let (channels, features) = (data.dims[1] / groups, weights.dims[1]);
    if weights.dims[0] != data.dims[1] {
        return Err("its weights do not fit its input".to_string());
    }
    let (extents, kernel) = (&data.dims[2..], &weights.dims[2..]);
    let Placement {
        strides,
        dilations,
        begin,
        shape,
    } = words.place(extents, kernel);
    let (area, places): (usize, usize) = (extents.iter().product(), shape.iter().product());
    let taps: usize = kernel.iter().product();
    let mut out = call.room::<T>([&[data.dims[0], features * groups], &shape[..]].concat())?;
    let bias = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let mut turned = room(vec![taps * channels], data.item)?;
    let mut sums = room(vec![taps * area], data.item)?;
    let (from, factors) = (data.items::<T>(), weights.items::<T>());
    for (i, image) in out.items_mut::<T>().chunks_mut(places.max(1)).enumerate() {
        let (n, feature) = (i / (features * groups), i % (features * groups));
        let (group, f) = (feature / features, feature % features);
        image.fill(bias.as_ref().map_or(T::ZERO, |b| b.items::<T>()[feature]));
        // Taps by channels, of this feature.
        for (t, row) in turned
            .items_mut::<T>()
            .chunks_mut(channels.max(1))
            .enumerate()
        {
            for (c, item) in row.iter_mut().enumerate() {
                *item = factors[((group * channels + c) * features + f) * taps + t];
            }
        }
        let start = (n * groups + group) * channels * area;
        let source = &from[start..start + channels * area];
        let sums = sums.items_mut::<T>();
        sums.fill(T::ZERO);
        multiply_into(turned.items(), source, area, sums, area, channels, area);
        let (mut tap, mut at) = (vec![0; spatial], vec![0; spatial]);
        for (t, row) in sums.chunks(area.max(1)).enumerate() {
            unravel(t, kernel, &mut tap);
            for (p, &x) in row.iter().enumerate() {
                unravel(p, extents, &mut at);
                let place = (0..spatial).try_fold(0, |place, k| {
                    let to = at[k] * strides[k] + tap[k] * dilations[k];
                    let to = to.checked_sub(begin[k]).filter(|&to| to < shape[k])?;
                    Some(place * shape[k] + to)
                });
                if let Some(place) = place {
                    image[place] = image[place].plus(x);
                }
            }
        }
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("conv", conv, f32 f64 i32);
export!("conv_transpose", conv_transpose, f32 f64);
