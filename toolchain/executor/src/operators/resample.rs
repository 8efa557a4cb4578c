//! Resize along one axis by tables of indices and weights that the compiler made.

use super::{Number, Words, DONE};

/// Words: elements before the axis, its extent, elements after it, its new extent, taps.
/// Element j of the new axis is `fill[j]` plus the sum of `weights[j][t]` times element
/// `indices[j][t]`.
unsafe fn resample<T: Number>(
    mut words: Words,
    x: *const T,
    indices: *const i32,
    weights: *const T,
    fill: *const T,
    out: *mut T,
) -> i32 {
    let (outer, extent, inner) = (words.size(), words.size(), words.size());
    let (wanted, taps) = (words.size(), words.size());
    for o in 0..outer {
        for j in 0..wanted {
            let row = out.add((o * wanted + j) * inner);
            for i in 0..inner {
                *row.add(i) = *fill.add(j);
            }
            for t in j * taps..(j + 1) * taps {
                let weight = *weights.add(t);
                let source = x.add((o * extent + *indices.add(t) as usize) * inner);
                for i in 0..inner {
                    *row.add(i) = (*row.add(i)).plus(weight.times(*source.add(i)));
                }
            }
        }
    }
    DONE
}

export!(
    "resample",
    resample(
        x: *const T,
        indices: *const i32,
        weights: *const T,
        fill: *const T,
        out: *mut T
    ),
    f32 f64
);
