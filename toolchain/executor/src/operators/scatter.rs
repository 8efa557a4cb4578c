//! ScatterND and ScatterElements with every reduction, and TensorScatter.

use super::words::{elements, resolved};
use super::{Number, Words, DONE, OUT_OF_RANGE};
use std::ptr::copy_nonoverlapping;
use std::slice::from_raw_parts;

/// How an update meets what is there, by the number that a word has.
fn reduction<T: Number>(code: i32) -> fn(T, T) -> T {
    match code {
        0 => |_, new| new,
        1 => T::plus,
        2 => T::times,
        3 => T::larger,
        _ => T::smaller,
    }
}

/// Words: reduction, how many indices, elements per update, how many axes an index has, their
/// extents (as many).
/// Of the output, which begins as `data`, `indices[i]` selects a slice that meets `updates[i]`.
pub unsafe fn scatter_nd<T: Number>(
    mut words: Words,
    data: *const T,
    indices: *const i64,
    updates: *const T,
    out: *mut T,
) -> i32 {
    let reduce = reduction::<T>(words.int());
    let count = words.size();
    let slice = words.size();
    let extents = words.counted();
    copy_nonoverlapping(data, out, elements(extents) * slice);
    for i in 0..count {
        let index = from_raw_parts(indices.add(i * extents.len()), extents.len());
        let mut place = 0;
        for (&at, &extent) in index.iter().zip(extents) {
            match resolved(at, extent) {
                Some(at) => place = place * extent as usize + at,
                None => return OUT_OF_RANGE,
            }
        }
        for k in 0..slice {
            let target = out.add(place * slice + k);
            *target = reduce(*target, *updates.add(i * slice + k));
        }
    }
    DONE
}

/// Words: reduction, axis, the shape of data (counted), the shape of indices (as many).
/// The output begins as `data`; along the axis `indices` says where each update goes.
pub unsafe fn scatter_elements<T: Number>(
    mut words: Words,
    data: *const T,
    indices: *const i64,
    updates: *const T,
    out: *mut T,
) -> i32 {
    let reduce = reduction::<T>(words.int());
    let axis = words.size();
    let shape = words.counted();
    let given = words.ints(shape.len());
    copy_nonoverlapping(data, out, elements(shape));
    for i in 0..elements(given) {
        let mut rest = i;
        let mut place = 0;
        let mut stride = 1;
        for k in (0..shape.len()).rev() {
            let mut at = rest % given[k] as usize;
            rest /= given[k] as usize;
            if k == axis {
                match resolved(*indices.add(i), shape[k]) {
                    Some(index) => at = index,
                    None => return OUT_OF_RANGE,
                }
            }
            place += at * stride;
            stride *= shape[k] as usize;
        }
        let target = out.add(place);
        *target = reduce(*target, *updates.add(i));
    }
    DONE
}

/// Words: batches, rows of each, extent of the axis in the cache, in the update, elements after it,
/// whether the axis is circular.
/// The output begins as `cache`; from `first[batch]` on the update is written along the axis.
pub unsafe fn tensor_scatter<T: Copy>(
    mut words: Words,
    cache: *const T,
    update: *const T,
    first: *const i64,
    out: *mut T,
) -> i32 {
    let (batches, rows) = (words.size(), words.size());
    let (extent, count, inner) = (words.int(), words.size(), words.size());
    let circular = words.flag();
    let length = extent as usize * inner;
    copy_nonoverlapping(cache, out, batches * rows * length);
    for row in 0..batches * rows {
        let begin = *first.add(row / rows);
        for k in 0..count {
            let mut at = begin + k as i64;
            if circular {
                at = at.rem_euclid(extent.into());
            }
            if !(0..extent.into()).contains(&at) {
                return OUT_OF_RANGE;
            }
            let target = out.add(row * length + at as usize * inner);
            copy_nonoverlapping(update.add((row * count + k) * inner), target, inner);
        }
    }
    DONE
}

export!(
    "tensor_scatter",
    tensor_scatter(cache: *const T, update: *const T, first: *const i64, out: *mut T),
    u8 u16 u32 u64
);
export!(
    "scatter_nd",
    scatter_nd(data: *const T, indices: *const i64, updates: *const T, out: *mut T),
    f32 f64 i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "scatter_elements",
    scatter_elements(data: *const T, indices: *const i64, updates: *const T, out: *mut T),
    f32 f64 i8 i16 i32 i64 u8 u16 u32 u64
);
