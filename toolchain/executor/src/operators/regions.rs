//! RoiAlign: regions of images, pooled to one size.

use super::number::Real;
use super::words::resolved;
use super::{Words, DONE, OUT_OF_RANGE};

/// A sample: the places of its four neighbours and their weights.
type Sample = [(usize, f64); 4];

/// Words: regions, images, channels, height, width, output height, output width, samples per axis
/// and bin (0: as many as fit), whether coordinates are of pixel centres, whether the maximum is
/// taken, the scale of regions (float).
/// A region is x and y of two corners. The maximum is that of weighted neighbours, not of their
/// sums: so ONNX has it.
unsafe fn roi_align<T: Real>(
    mut words: Words,
    x: *const T,
    regions: *const T,
    images: *const i64,
    out: *mut T,
) -> i32 {
    let (count, batch, channels) = (words.size(), words.int(), words.size());
    let (height, width) = (words.size(), words.size());
    let (bins_y, bins_x) = (words.size(), words.size());
    let (sampling, centred, maximum) = (words.size(), words.flag(), words.flag());
    let scale = f64::from(words.float());
    let mut target = out;
    for r in 0..count {
        let image = match resolved(*images.add(r), batch) {
            Some(image) => image,
            None => return OUT_OF_RANGE,
        };
        let corner =
            |k: usize| (*regions.add(4 * r + k)).wide() * scale - if centred { 0.5 } else { 0.0 };
        let axis = |first: usize, bins: usize| {
            let length = corner(first + 2) - corner(first);
            // A region that is empty, or turned over, is one pixel.
            let length = if centred { length } else { length.max(1.0) };
            let bin = length / bins as f64;
            let samples = if sampling > 0 {
                sampling
            } else {
                bin.ceil() as usize
            };
            (corner(first), bin, samples)
        };
        let (left, bin_x, samples_x) = axis(0, bins_x);
        let (top, bin_y, samples_y) = axis(1, bins_y);
        for c in 0..channels {
            let plane = x.add((image * channels + c) * height * width);
            for by in 0..bins_y {
                for bx in 0..bins_x {
                    let mut result: Option<f64> = None;
                    for i in 0..samples_y * samples_x {
                        let part = |k: usize, n: usize| (k as f64 + 0.5) / n as f64;
                        let row = top + (by as f64 + part(i / samples_x, samples_y)) * bin_y;
                        let column = left + (bx as f64 + part(i % samples_x, samples_x)) * bin_x;
                        let values = sample(row, column, height, width)
                            .map(|(place, weight)| weight * (*plane.add(place)).wide());
                        let value = if maximum {
                            values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                        } else {
                            values.iter().sum()
                        };
                        result = Some(match result {
                            None => value,
                            Some(old) if maximum => old.max(value),
                            Some(old) => old + value,
                        });
                    }
                    let divisor = if maximum {
                        1
                    } else {
                        (samples_y * samples_x).max(1)
                    };
                    *target = T::narrow(result.unwrap_or(0.0) / divisor as f64);
                    target = target.add(1);
                }
            }
        }
    }
    DONE
}

/// Linear interpolation that repeats the border, up to one pixel outside; beyond there are zeros.
fn sample(row: f64, column: f64, height: usize, width: usize) -> Sample {
    let inside = |at: f64, extent: usize| at >= -1.0 && at <= extent as f64;
    if !inside(row, height) || !inside(column, width) {
        return [(0, 0.0); 4];
    }
    let neighbours = |at: f64, extent: usize| {
        let at = at.max(0.0).min((extent - 1) as f64);
        let low = at as usize;
        let high = (low + 1).min(extent - 1);
        [(low, 1.0 - (at - low as f64)), (high, at - low as f64)]
    };
    let (rows, columns) = (neighbours(row, height), neighbours(column, width));
    let pair = |y: (usize, f64), x: (usize, f64)| (y.0 * width + x.0, y.1 * x.1);
    [
        pair(rows[0], columns[0]),
        pair(rows[0], columns[1]),
        pair(rows[1], columns[0]),
        pair(rows[1], columns[1]),
    ]
}

export!(
    "roi_align",
    roi_align(x: *const T, regions: *const T, images: *const i64, out: *mut T),
    f32 f64
);
