//! What all dtypes have in common.

/// A dtype to compute with. Integers wrap around, as numpy's do.
pub trait Number: Copy + PartialOrd {
    const ZERO: Self;
    const ONE: Self;
    /// Nothing is less.
    const LEAST: Self;

    fn plus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;

    /// The larger one; NaN where one is NaN.
    fn larger(self, other: Self) -> Self {
        #[allow(clippy::eq_op)] // only NaN differs from itself
        if self > other || self != self {
            self
        } else {
            other
        }
    }

    /// The smaller one; NaN where one is NaN.
    fn smaller(self, other: Self) -> Self {
        #[allow(clippy::eq_op)]
        if self < other || self != self {
            self
        } else {
            other
        }
    }
}

macro_rules! integers {
    ($($dtype:ident)+) => {
        $(impl Number for $dtype {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LEAST: Self = $dtype::MIN;

            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
        })+
    };
}

macro_rules! floats {
    ($($dtype:ident)+) => {
        $(impl Number for $dtype {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LEAST: Self = $dtype::NEG_INFINITY;

            fn plus(self, other: Self) -> Self {
                self + other
            }

            fn times(self, other: Self) -> Self {
                self * other
            }
        })+
    };
}

integers!(i8 i16 i32 i64 u8 u16 u32 u64);
floats!(f32 f64);

/// A float that is computed with in double precision.
pub trait Real: Number {
    fn wide(self) -> f64;
    fn narrow(wide: f64) -> Self;
}

impl Real for f32 {
    fn wide(self) -> f64 {
        self.into()
    }

    fn narrow(wide: f64) -> f32 {
        wide as f32
    }
}

impl Real for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn narrow(wide: f64) -> f64 {
        wide
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_around() {
        assert_eq!(200u8.plus(100), 44);
        assert_eq!(i32::MAX.times(2), -2);
    }

    #[test]
    fn nan_wins_on_either_side() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            assert!(a.larger(b).is_nan());
            assert!(a.smaller(b).is_nan());
        }
        assert_eq!(2.0f64.larger(3.0), 3.0);
        assert_eq!(2.smaller(3), 2);
    }
}
