//! Col2Im, which adds up blocks where they overlap, and DeformConv, whose windows are bent.

use super::number::Real;
use super::words::{coordinates, elements, flat};
use super::{Number, Words, DONE};

/// Words: how many images (batch times channels), the extents of an image (counted); as many each:
/// extents of a block, how many blocks, strides, dilations, padding before the first element.
/// `x` has, per image, a row per place in a block and in it an element per block.
unsafe fn col2im<T: Number>(mut words: Words, x: *const T, out: *mut T) -> i32 {
    let images = words.size();
    let shape = words.counted();
    let rank = shape.len();
    let (block, blocks) = (words.ints(rank), words.ints(rank));
    let (strides, dilations, pads) = (words.ints(rank), words.ints(rank), words.ints(rank));
    let (mut tap, mut number, mut at) = (vec![0; rank], vec![0; rank], vec![0; rank]);
    let (rows, columns) = (elements(block), elements(blocks));
    for i in 0..images * elements(shape) {
        *out.add(i) = T::ZERO;
    }
    for i in 0..images * rows * columns {
        coordinates(i / columns % rows, block, &mut tap);
        coordinates(i % columns, blocks, &mut number);
        for k in 0..rank {
            at[k] = number[k] * strides[k] - pads[k] + tap[k] * dilations[k];
        }
        if (0..rank).all(|k| at[k] >= 0 && at[k] < shape[k]) {
            let target = out.add(i / (rows * columns) * elements(shape) + flat(&at, shape));
            *target = (*target).plus(*x.add(i));
        }
    }
    DONE
}

/// Words: batch, input channels, height, width, output channels, groups, offset groups; of window,
/// output, strides, dilations, and padding at the beginning each: rows and columns; whether there is
/// a mask.
/// Samples are interpolated linearly; outside of the image there are zeros.
unsafe fn deform_conv<T: Real>(
    mut words: Words,
    x: *const T,
    weights: *const T,
    offsets: *const T,
    bias: *const T,
    mask: *const T,
    out: *mut T,
) -> i32 {
    let (batch, channels) = (words.size(), words.size());
    let (height, width) = (words.size(), words.size());
    let (out_channels, groups, offset_groups) = (words.size(), words.size(), words.size());
    let (window, out_shape) = (words.ints(2), words.ints(2));
    let (strides, dilations, pads) = (words.ints(2), words.ints(2), words.ints(2));
    let masked = words.flag();
    let (taps, pixels) = (elements(window), elements(out_shape));
    let (per_group, per_offset) = (channels / groups, channels / offset_groups);
    // The samples of all channels for one element of the output, in the order of the weights.
    let mut samples = vec![0.0; channels * taps];
    for n in 0..batch {
        for pixel in 0..pixels {
            for c in 0..channels {
                let image = x.add((n * channels + c) * height * width);
                let row = (n * offset_groups + c / per_offset) * taps;
                for t in 0..taps {
                    let moved =
                        |k: usize| (*offsets.add(((row + t) * 2 + k) * pixels + pixel)).wide();
                    let place = |k: usize, out_at: i32, tap: i32| {
                        f64::from(out_at * strides[k] - pads[k] + tap * dilations[k]) + moved(k)
                    };
                    let at_row = place(0, pixel as i32 / out_shape[1], t as i32 / window[1]);
                    let at_column = place(1, pixel as i32 % out_shape[1], t as i32 % window[1]);
                    let mut value = interpolated(image, height, width, at_row, at_column);
                    if masked {
                        value *= (*mask.add((row + t) * pixels + pixel)).wide();
                    }
                    samples[c * taps + t] = value;
                }
            }
            for o in 0..out_channels {
                let group = o / (out_channels / groups);
                let own = &samples[group * per_group * taps..(group + 1) * per_group * taps];
                let kernel = weights.add(o * per_group * taps);
                let products = own
                    .iter()
                    .enumerate()
                    .map(|(i, s)| s * (*kernel.add(i)).wide());
                let sum = products.sum::<f64>() + (*bias.add(o)).wide();
                *out.add((n * out_channels + o) * pixels + pixel) = T::narrow(sum);
            }
        }
    }
    DONE
}

unsafe fn interpolated<T: Real>(
    image: *const T,
    height: usize,
    width: usize,
    row: f64,
    column: f64,
) -> f64 {
    let (top, left) = (row.floor(), column.floor());
    let mut sum = 0.0;
    for (y, by_row) in [(top, top + 1.0 - row), (top + 1.0, row - top)] {
        for (x, by_column) in [(left, left + 1.0 - column), (left + 1.0, column - left)] {
            if y >= 0.0 && y < height as f64 && x >= 0.0 && x < width as f64 {
                let value = *image.add(y as usize * width + x as usize);
                sum += by_row * by_column * value.wide();
            }
        }
    }
    sum
}

export!(
    "col2im",
    col2im(x: *const T, out: *mut T),
    f32 f64 i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "deform_conv",
    deform_conv(
        x: *const T,
        weights: *const T,
        offsets: *const T,
        bias: *const T,
        mask: *const T,
        out: *mut T
    ),
    f32 f64
);
