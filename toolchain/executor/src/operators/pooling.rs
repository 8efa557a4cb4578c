//! MaxPool that says where its maxima were, and MaxUnpool, which puts them back.

use super::words::{coordinates, elements, flat};
use super::{Number, Words, DONE, OUT_OF_RANGE};

/// Words: how many images (batch times channels), whether indices count the first axis fastest, the
/// extents of an image (counted); as many each: extents of the output, of a window, strides,
/// dilations, padding before the first element.
/// Indices count over the whole input. A window of padding alone gives index -1.
unsafe fn max_pool<T: Number>(
    mut words: Words,
    x: *const T,
    values: *mut T,
    indices: *mut i64,
) -> i32 {
    let (images, first_fastest) = (words.size(), words.flag());
    let shape = words.counted();
    let rank = shape.len();
    let (out_shape, window) = (words.ints(rank), words.ints(rank));
    let (strides, dilations, pads) = (words.ints(rank), words.ints(rank), words.ints(rank));
    let (mut out_at, mut tap, mut at) = (vec![0; rank], vec![0; rank], vec![0; rank]);
    let reversed: Vec<i32> = shape.iter().rev().copied().collect();
    for image in 0..images {
        let base = image * elements(shape);
        for i in 0..elements(out_shape) {
            coordinates(i, out_shape, &mut out_at);
            let mut best = None;
            for t in 0..elements(window) {
                coordinates(t, window, &mut tap);
                for k in 0..rank {
                    at[k] = out_at[k] * strides[k] - pads[k] + tap[k] * dilations[k];
                }
                if (0..rank).any(|k| at[k] < 0 || at[k] >= shape[k]) {
                    continue;
                }
                let value = *x.add(base + flat(&at, shape));
                #[allow(clippy::eq_op)] // only NaN differs from itself
                let better = |old: T| value > old || (value != value && old == old);
                if best.map_or(true, |(old, _)| better(old)) {
                    let place = if first_fastest {
                        let backwards: Vec<i32> = at.iter().rev().copied().collect();
                        flat(&backwards, &reversed)
                    } else {
                        flat(&at, shape)
                    };
                    best = Some((value, (base + place) as i64));
                }
            }
            let target = image * elements(out_shape) + i;
            let (value, index) = best.unwrap_or((T::LEAST, -1));
            *values.add(target) = value;
            *indices.add(target) = index;
        }
    }
    DONE
}

/// Words: how many values, the shape that the indices count in (counted), the output's (as many).
unsafe fn max_unpool<T: Number>(
    mut words: Words,
    values: *const T,
    indices: *const i64,
    out: *mut T,
) -> i32 {
    let count = words.size();
    let shape = words.counted();
    let out_shape = words.ints(shape.len());
    let mut at = vec![0; shape.len()];
    for i in 0..elements(out_shape) {
        *out.add(i) = T::ZERO;
    }
    for i in 0..count {
        let index = *indices.add(i);
        if index < 0 || index >= elements(shape) as i64 {
            return OUT_OF_RANGE;
        }
        coordinates(index as usize, shape, &mut at);
        if (0..shape.len()).any(|k| at[k] >= out_shape[k]) {
            return OUT_OF_RANGE;
        }
        *out.add(flat(&at, out_shape)) = *values.add(i);
    }
    DONE
}

export!(
    "max_pool",
    max_pool(x: *const T, values: *mut T, indices: *mut i64),
    f32 f64 i8 u8
);
export!(
    "max_unpool",
    max_unpool(values: *const T, indices: *const i64, out: *mut T),
    f32 f64
);
