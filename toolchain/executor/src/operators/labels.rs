//! Encoders of ai.onnx.ml: which of several numbers an element is.

use super::{Number, Words, DONE, OUT_OF_RANGE};
use std::slice::from_raw_parts;

/// Words: elements, keys, whether an element may be no key.
/// Answers the number of the first key that each element equals (NaN equals NaN); how many keys there
/// are where it equals none.
unsafe fn key_number<T: Number>(
    mut words: Words,
    x: *const T,
    keys: *const T,
    out: *mut i64,
) -> i32 {
    let (elements, count, may_be_none) = (words.size(), words.size(), words.flag());
    let keys = from_raw_parts(keys, count);
    for i in 0..elements {
        let value = *x.add(i);
        let found = keys.iter().position(|key| same(*key, value));
        if found.is_none() && !may_be_none {
            return OUT_OF_RANGE;
        }
        *out.add(i) = found.unwrap_or(count) as i64;
    }
    DONE
}

#[allow(clippy::eq_op)] // only NaN differs from itself
fn same<T: Number>(a: T, b: T) -> bool {
    a == b || (a != a && b != b)
}

export!(
    "key_number",
    key_number(x: *const T, keys: *const T, out: *mut i64),
    f32 f64 i16 i32 i64
);

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn what_is_not_a_number_is_a_key_too() {
        assert!(same(f32::NAN, f32::NAN) && same(2, 2));
        assert!(!same(f32::NAN, 1.0) && !same(1, 2));
    }
}
