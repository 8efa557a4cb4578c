//! Operators along one axis: cumulative sums and products, sequences back to front, the k largest,
//! one-hot vectors.
//!
//! `outer` and `inner` are how many elements there are before and after the axis.

use super::words::resolved;
use super::{Number, Words, DONE, OUT_OF_RANGE};
use std::cmp::Ordering;
use std::ptr::copy_nonoverlapping;

/// Words: outer, extent, inner, whether an element itself is left out, whether from the end.
unsafe fn cumulate<T: Copy>(
    mut words: Words,
    x: *const T,
    out: *mut T,
    start: T,
    combine: fn(T, T) -> T,
) -> i32 {
    let (outer, extent, inner) = (words.size(), words.size(), words.size());
    let (exclusive, reverse) = (words.flag(), words.flag());
    for o in 0..outer {
        for i in 0..inner {
            let mut total = start;
            for k in 0..extent {
                let k = if reverse { extent - 1 - k } else { k };
                let at = (o * extent + k) * inner + i;
                let next = combine(total, *x.add(at));
                *out.add(at) = if exclusive { total } else { next };
                total = next;
            }
        }
    }
    DONE
}

pub unsafe fn cumulative_sum<T: Number>(words: Words, x: *const T, out: *mut T) -> i32 {
    cumulate(words, x, out, T::ZERO, T::plus)
}

pub unsafe fn cumulative_product<T: Number>(words: Words, x: *const T, out: *mut T) -> i32 {
    cumulate(words, x, out, T::ONE, T::times)
}

/// Words: extent of the time axis, of the batch axis, elements after both, whether time comes first.
/// The first `lengths[b]` elements of sequence b come back to front.
pub unsafe fn reverse_sequence<T: Copy>(
    mut words: Words,
    x: *const T,
    lengths: *const i64,
    out: *mut T,
) -> i32 {
    let (time, batch, inner) = (words.size(), words.size(), words.size());
    let time_first = words.flag();
    for b in 0..batch {
        let length = *lengths.add(b);
        if length < 0 || length > time as i64 {
            return OUT_OF_RANGE;
        }
        for t in 0..time {
            let from = if t < length as usize {
                length as usize - 1 - t
            } else {
                t
            };
            let place = |t| {
                if time_first {
                    t * batch + b
                } else {
                    b * time + t
                }
            };
            copy_nonoverlapping(x.add(place(from) * inner), out.add(place(t) * inner), inner);
        }
    }
    DONE
}

/// Words: outer, extent, inner, k, whether the largest.
/// Sorted; of equal elements the first comes first, and NaN is the largest.
pub unsafe fn top_k<T: Number>(
    mut words: Words,
    x: *const T,
    values: *mut T,
    indices: *mut i64,
) -> i32 {
    let (outer, extent, inner) = (words.size(), words.size(), words.size());
    let (k, largest) = (words.size(), words.flag());
    let mut places = Vec::with_capacity(extent);
    for o in 0..outer {
        for i in 0..inner {
            let value = |place: usize| *x.add((o * extent + place) * inner + i);
            let ahead = |&a: &usize, &b: &usize| {
                let order = total_order(value(a), value(b));
                let order = if largest { order.reverse() } else { order };
                order.then(a.cmp(&b))
            };
            places.clear();
            places.extend(0..extent);
            if k < extent {
                places.select_nth_unstable_by(k, ahead);
            }
            places[..k].sort_unstable_by(ahead);
            for (rank, &place) in places[..k].iter().enumerate() {
                let at = (o * k + rank) * inner + i;
                *values.add(at) = value(place);
                *indices.add(at) = place as i64;
            }
        }
    }
    DONE
}

fn total_order<T: PartialOrd>(a: T, b: T) -> Ordering {
    #[allow(clippy::eq_op)] // only NaN differs from itself
    a.partial_cmp(&b).unwrap_or_else(|| (a != a).cmp(&(b != b)))
}

/// Words: indices before the new axis, depth, indices after it.
/// `values` are off and on; an index that is out of range is on nowhere.
pub unsafe fn one_hot<T: Copy>(
    mut words: Words,
    indices: *const i64,
    values: *const T,
    out: *mut T,
) -> i32 {
    let (outer, depth, inner) = (words.size(), words.int(), words.size());
    for o in 0..outer {
        for i in 0..inner {
            let on = resolved(*indices.add(o * inner + i), depth);
            for d in 0..depth as usize {
                let at = (o * depth as usize + d) * inner + i;
                *out.add(at) = *values.add((Some(d) == on) as usize);
            }
        }
    }
    DONE
}

export!(
    "cumulative_sum",
    cumulative_sum(x: *const T, out: *mut T),
    f32 f64 i32 i64 u32 u64
);
export!(
    "cumulative_product",
    cumulative_product(x: *const T, out: *mut T),
    f32 f64 i32 i64 u32 u64
);
export!(
    "reverse_sequence",
    reverse_sequence(x: *const T, lengths: *const i64, out: *mut T),
    u8 u16 u32 u64
);
export!(
    "top_k",
    top_k(x: *const T, values: *mut T, indices: *mut i64),
    f32 f64 i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "one_hot",
    one_hot(indices: *const i64, values: *const T, out: *mut T),
    u8 u16 u32 u64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_the_largest_and_equal_to_itself() {
        assert_eq!(total_order(f32::NAN, f32::INFINITY), Ordering::Greater);
        assert_eq!(total_order(1.0, f32::NAN), Ordering::Less);
        assert_eq!(total_order(f32::NAN, f32::NAN), Ordering::Equal);
        assert_eq!(total_order(2, 1), Ordering::Greater);
    }
}
