//! Pad with one value that is computed, or by less than nothing.

use super::words::{coordinates, elements, flat};
use super::{Words, DONE};

/// Words: the shape of the input (counted); as many each: the output's, and how far the input's first
/// element lies from it.
unsafe fn pad<T: Copy>(mut words: Words, x: *const T, value: *const T, out: *mut T) -> i32 {
    let shape = words.counted();
    let (out_shape, begin) = (words.ints(shape.len()), words.ints(shape.len()));
    let mut at = vec![0; shape.len()];
    for i in 0..elements(out_shape) {
        coordinates(i, out_shape, &mut at);
        for (place, &offset) in at.iter_mut().zip(begin) {
            *place -= offset;
        }
        let inside = at.iter().zip(shape).all(|(&k, &n)| k >= 0 && k < n);
        *out.add(i) = if inside {
            *x.add(flat(&at, shape))
        } else {
            *value
        };
    }
    DONE
}

export!("pad", pad(x: *const T, value: *const T, out: *mut T), u8 u16 u32 u64);
