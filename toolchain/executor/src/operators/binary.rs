//! Element-wise operators of two tensors that are broadcast: remainders, powers of integers, shifts.
//!
//! Words of each: the shape of the output (counted), the elements between neighbours along its axes
//! in the first operand (as many) and in the second.

use super::words::{elements, Words};
use super::DONE;

unsafe fn binary<A: Copy, B: Copy, C>(
    mut words: Words,
    a: *const A,
    b: *const B,
    out: *mut C,
    combine: fn(A, B) -> C,
) -> i32 {
    let shape = words.counted();
    let (steps_a, steps_b) = (words.ints(shape.len()), words.ints(shape.len()));
    let mut index = vec![0; shape.len()];
    let (mut at_a, mut at_b) = (0, 0);
    for i in 0..elements(shape) {
        *out.add(i) = combine(*a.add(at_a), *b.add(at_b));
        for k in (0..shape.len()).rev() {
            index[k] += 1;
            at_a += steps_a[k] as usize;
            at_b += steps_b[k] as usize;
            if index[k] < shape[k] {
                break;
            }
            index[k] = 0;
            at_a -= (steps_a[k] * shape[k]) as usize;
            at_b -= (steps_b[k] * shape[k]) as usize;
        }
    }
    DONE
}

/// The remainders of a division. Of integers divided by 0 they are 0, as numpy has it.
pub trait Remainder: Copy {
    /// With the sign of the divisor.
    fn modulo(self, divisor: Self) -> Self;

    /// With the sign of the dividend.
    fn remainder(self, divisor: Self) -> Self;
}

macro_rules! remainders_of_integers {
    ($($dtype:ident)+) => {
        $(impl Remainder for $dtype {
            fn modulo(self, divisor: Self) -> Self {
                let rest = self.remainder(divisor);
                #[allow(unused_comparisons)] // of unsigned ones
                if rest != 0 && (rest < 0) != (divisor < 0) {
                    rest.wrapping_add(divisor)
                } else {
                    rest
                }
            }

            fn remainder(self, divisor: Self) -> Self {
                match divisor {
                    0 => 0,
                    _ => self.wrapping_rem(divisor),
                }
            }
        })+
    };
}

macro_rules! remainders_of_floats {
    ($($dtype:ident)+) => {
        $(impl Remainder for $dtype {
            fn modulo(self, divisor: Self) -> Self {
                let rest = self % divisor;
                if rest == 0.0 {
                    rest.copysign(divisor)
                } else if (rest < 0.0) != (divisor < 0.0) {
                    rest + divisor
                } else {
                    rest
                }
            }

            fn remainder(self, divisor: Self) -> Self {
                self % divisor
            }
        })+
    };
}

remainders_of_integers!(i8 i16 i32 i64 u8 u16 u32 u64);
remainders_of_floats!(f32 f64);

/// What only integers have.
pub trait Integer: Copy {
    /// Wraps around; 1 / self^n for a negative exponent, rounded towards 0.
    fn power(self, exponent: i64) -> Self;

    /// By way of float64.
    fn power_of_float(self, exponent: f64) -> Self;

    /// 0 where all bits leave.
    fn shift_left(self, by: Self) -> Self;

    /// 0, or -1 of a negative number, where all bits leave.
    fn shift_right(self, by: Self) -> Self;
}

macro_rules! integers {
    ($($dtype:ident)+) => {
        $(impl Integer for $dtype {
            fn power(self, exponent: i64) -> Self {
                if exponent < 0 {
                    return match (self, exponent % 2) {
                        (1, _) => 1,
                        #[allow(unused_comparisons)]
                        (x, odd) if x < 0 && x.wrapping_add(1) == 0 => {
                            if odd == 0 { 1 } else { x }
                        }
                        _ => 0,
                    };
                }
                let (mut result, mut square, mut rest) = (1 as $dtype, self, exponent);
                while rest > 0 {
                    if rest % 2 == 1 {
                        result = result.wrapping_mul(square);
                    }
                    square = square.wrapping_mul(square);
                    rest /= 2;
                }
                result
            }

            fn power_of_float(self, exponent: f64) -> Self {
                (self as f64).powf(exponent) as $dtype
            }

            fn shift_left(self, by: Self) -> Self {
                match u32::try_from(by) {
                    Ok(by) => self.checked_shl(by).unwrap_or(0),
                    Err(_) => 0,
                }
            }

            #[allow(unused_comparisons)]
            fn shift_right(self, by: Self) -> Self {
                let by = u32::try_from(by).unwrap_or(u32::MAX);
                self.checked_shr(by)
                    .unwrap_or(if self < 0 { (0 as $dtype).wrapping_sub(1) } else { 0 })
            }
        })+
    };
}

integers!(i8 i16 i32 i64 u8 u16 u32 u64);

unsafe fn modulo<T: Remainder>(words: Words, a: *const T, b: *const T, out: *mut T) -> i32 {
    binary(words, a, b, out, T::modulo)
}

unsafe fn remainder<T: Remainder>(words: Words, a: *const T, b: *const T, out: *mut T) -> i32 {
    binary(words, a, b, out, T::remainder)
}

unsafe fn power<T: Integer>(words: Words, a: *const T, b: *const i64, out: *mut T) -> i32 {
    binary(words, a, b, out, T::power)
}

unsafe fn power_of_float<T: Integer>(words: Words, a: *const T, b: *const f64, out: *mut T) -> i32 {
    binary(words, a, b, out, T::power_of_float)
}

unsafe fn shift_left<T: Integer>(words: Words, a: *const T, b: *const T, out: *mut T) -> i32 {
    binary(words, a, b, out, T::shift_left)
}

unsafe fn shift_right<T: Integer>(words: Words, a: *const T, b: *const T, out: *mut T) -> i32 {
    binary(words, a, b, out, T::shift_right)
}

export!(
    "modulo",
    modulo(a: *const T, b: *const T, out: *mut T),
    f32 f64 i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "remainder",
    remainder(a: *const T, b: *const T, out: *mut T),
    f32 f64 i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "power",
    power(a: *const T, b: *const i64, out: *mut T),
    i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "power_of_float",
    power_of_float(a: *const T, b: *const f64, out: *mut T),
    i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "shift_left",
    shift_left(a: *const T, b: *const T, out: *mut T),
    i8 i16 i32 i64 u8 u16 u32 u64
);
export!(
    "shift_right",
    shift_right(a: *const T, b: *const T, out: *mut T),
    i8 i16 i32 i64 u8 u16 u32 u64
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_have_the_sign_that_is_asked_for() {
        assert_eq!(((-7).modulo(3), (-7).remainder(3)), (2, -1));
        assert_eq!((7.0f32.modulo(-3.0), 7.0f32.remainder(-3.0)), (-2.0, 1.0));
        assert_eq!((5u8.modulo(0), i32::MIN.modulo(-1)), (0, 0));
        assert!(1.0f64.modulo(0.0).is_nan());
        assert_eq!((-1.0f32).modulo(f32::INFINITY), f32::INFINITY);
        assert!((-0.0f32).modulo(3.0).is_sign_positive());
    }

    #[test]
    fn powers_of_integers() {
        assert_eq!(
            (2.power(10), 2u8.power(9), (-3i64).power(3)),
            (1024, 0, -27)
        );
        assert_eq!(
            (2.power(-1), 1.power(-5), (-1).power(-5), (-1).power(-4)),
            (0, 1, -1, 1)
        );
        assert_eq!(4.power_of_float(0.5), 2);
    }

    #[test]
    fn shifts_by_any_number() {
        assert_eq!(
            (1u8.shift_left(7), 1u8.shift_left(8), 1.shift_left(-1)),
            (128, 0, 0)
        );
        assert_eq!(
            (
                (-8).shift_right(1),
                (-8).shift_right(99),
                (-8).shift_right(-1)
            ),
            (-4, -1, -1)
        );
        assert_eq!(200u8.shift_right(200), 0);
    }

    #[test]
    fn operands_are_broadcast() {
        let words = [2, 2, 3, 1, 0, 0, 1];
        let mut out = [0; 6];
        let (a, b) = ([10, 20], [1, 2, 3]);
        let add = |a: i32, b: i32| a + b;
        unsafe {
            let words = Words::new(words.as_ptr());
            assert_eq!(
                binary(words, a.as_ptr(), b.as_ptr(), out.as_mut_ptr(), add),
                DONE
            );
        }
        assert_eq!(out, [11, 12, 13, 21, 22, 23]);
    }
}
