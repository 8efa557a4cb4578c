//! Element-wise operators of one tensor.

use crate::dynamic::call::{Answer, Call};
use crate::dynamic::ops::binary::Element;
use crate::operators::number::Number;

fn map<A: Element, C>(call: &mut Call, change: impl Fn(A) -> C) -> Answer {
    let out = A::mapped(&call.tensor(0)?, change)?;
    call.set_tensor(0, out);
    Ok(())
}

/// float32 and float64, computed in their own precision.
pub trait Real: Number + Element + std::ops::Neg<Output = Self> {
    fn of(number: f64) -> Self;
    fn wide(self) -> f64;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    fn over(self, other: Self) -> Self;
    fn less(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    fn through(self, narrow: fn(f32) -> f32, wide: fn(f64) -> f64) -> Self;
}

impl Real for f32 {
    fn of(number: f64) -> f32 {
        number as f32
    }
    fn wide(self) -> f64 {
        self.into()
    }
    fn exp(self) -> f32 {
        f32::exp(self)
    }
    fn tanh(self) -> f32 {
        f32::tanh(self)
    }
    fn over(self, other: f32) -> f32 {
        self / other
    }
    fn less(self, other: f32) -> f32 {
        self - other
    }
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    fn through(self, narrow: fn(f32) -> f32, _: fn(f64) -> f64) -> f32 {
        narrow(self)
    }
}

impl Real for f64 {
    fn of(number: f64) -> f64 {
        number
    }
    fn wide(self) -> f64 {
        self
    }
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    fn over(self, other: f64) -> f64 {
        self / other
    }
    fn less(self, other: f64) -> f64 {
        self - other
    }
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    fn through(self, _: fn(f32) -> f32, wide: fn(f64) -> f64) -> f64 {
        wide(self)
    }
}

extern "C" {
    fn erf(x: f64) -> f64;
    fn erff(x: f32) -> f32;
}

/// The error function, from the C library.
pub fn error_function<T: Real>(x: T) -> T {
    x.through(|x| unsafe { erff(x) }, |x| unsafe { erf(x) })
}

/// Half to even, which Rust has only since 1.77: adding 2^52 leaves no room for a fraction.
pub fn round_half_even(x: f64) -> f64 {
    const SHIFT: f64 = 4_503_599_627_370_496.0;
    if x.abs() < SHIFT {
        (x.abs() + SHIFT - SHIFT).copysign(x)
    } else {
        x
    }
}

/// Functions that Rust or the C library have for both precisions.
macro_rules! of_floats {
    ($($name:literal $function:ident)+) => {
        $(const _: () = {
            fn compute<T: Real>(call: &mut Call) -> Answer {
                map(call, |x: T| x.through(f32::$function, f64::$function))
            }
            export!($name, compute, f32 f64);
        };)+
    };
}

of_floats!(
    "exp" exp "log" ln "sqrt" sqrt "reciprocal" recip "sin" sin "cos" cos "tan" tan "asin" asin
    "acos" acos "atan" atan "sinh" sinh "cosh" cosh "tanh" tanh "asinh" asinh "acosh" acosh
    "atanh" atanh "floor" floor "ceil" ceil
);

/// Functions of x and of up to two float32 words.
macro_rules! formulas {
    ($($name:literal($x:ident $(, $word:ident)*) $body:expr;)+) => {
        $(const _: () = {
            fn compute<T: Real>(call: &mut Call) -> Answer {
                $(let $word = T::of(call.words.float().into());)*
                map(call, |$x: T| $body)
            }
            export!($name, compute, f32 f64);
        };)+
    };
}

pub fn sigmoid<T: Real>(x: T) -> T {
    T::ONE.over(T::ONE.plus((-x).exp()))
}

fn softplus<T: Real>(x: T) -> T {
    // log(1 + e^x) without overflow.
    let tail = (-x.larger(-x)).exp();
    x.larger(T::ZERO).plus(tail.through(f32::ln_1p, f64::ln_1p))
}

/// Between two bounds.
fn between<T: Real>(x: T, low: T, high: T) -> T {
    x.larger(low).smaller(high)
}

formulas!(
    "erf"(x) error_function(x);
    "round"(x) T::of(round_half_even(x.wide()));
    "sigmoid"(x) sigmoid(x);
    "softplus"(x) softplus(x);
    "softsign"(x) x.over(T::ONE.plus(x.larger(-x)));
    "mish"(x) x.times(softplus(x).tanh());
    "swish"(x, alpha) x.times(sigmoid(x.times(alpha)));
    "hard_swish"(x) x.times(between(x.over(T::of(6.0)).plus(T::of(0.5)), T::ZERO, T::ONE));
    "hard_sigmoid"(x, alpha, beta) between(x.times(alpha).plus(beta), T::ZERO, T::ONE);
    "leaky_relu"(x, alpha) if x < T::ZERO { x.times(alpha) } else { x };
    "elu"(x, alpha) if x < T::ZERO { alpha.times(x.through(f32::exp_m1, f64::exp_m1)) } else { x };
    "celu"(x, alpha) if x < T::ZERO {
        alpha.times(x.over(alpha).through(f32::exp_m1, f64::exp_m1))
    } else {
        x
    };
    "selu"(x, alpha, gamma) gamma.times(if x < T::ZERO {
        alpha.times(x.through(f32::exp_m1, f64::exp_m1))
    } else {
        x
    });
    "thresholded_relu"(x, alpha) if x > alpha { x } else { T::ZERO };
    "shrink"(x, bound, bias) if x < -bound {
        x.plus(bias)
    } else if x > bound {
        x.less(bias)
    } else {
        T::ZERO
    };
    "gelu"(x) {
        let half = T::of(0.5);
        half.times(x).times(T::ONE.plus(error_function(x.times(T::of(0.5f64.sqrt())))))
    };
    "gelu_tanh"(x) {
        let cubed = x.times(x).times(x).times(T::of(0.044715));
        let slope = T::of((2.0 / std::f64::consts::PI).sqrt());
        T::of(0.5).times(x).times(T::ONE.plus(slope.times(x.plus(cubed)).tanh()))
    };
);

fn relu<T: Number + Element>(call: &mut Call) -> Answer {
    map(call, |x: T| x.larger(T::ZERO))
}

/// What integers and floats have, each in its own way.
trait Signed: Number + Element {
    fn opposite(self) -> Self;

    fn sign(self) -> Self {
        if self > Self::ZERO {
            Self::ONE
        } else if self < Self::ZERO {
            Self::ONE.opposite()
        } else {
            self
        }
    }

    fn magnitude(self) -> Self {
        if self < Self::ZERO {
            self.opposite()
        } else {
            self
        }
    }
}

macro_rules! signed {
    (integers $($dtype:ident)+) => {
        $(impl Signed for $dtype {
            fn opposite(self) -> Self { self.wrapping_neg() }
        })+
    };
    (floats $($dtype:ident)+) => {
        $(impl Signed for $dtype {
            fn opposite(self) -> Self { -self }
            fn magnitude(self) -> Self { self.abs() }
        })+
    };
}

signed!(integers i8 i16 i32 i64 u8 u16 u32 u64);
signed!(floats f32 f64);

fn abs<T: Signed>(call: &mut Call) -> Answer {
    map(call, T::magnitude)
}

fn neg<T: Signed>(call: &mut Call) -> Answer {
    map(call, T::opposite)
}

fn sign<T: Signed>(call: &mut Call) -> Answer {
    map(call, T::sign)
}

fn not(call: &mut Call) -> Answer {
    map(call, |x: u8| u8::from(x == 0))
}

fn bit_not<T: Element + std::ops::Not<Output = T>>(call: &mut Call) -> Answer {
    map(call, |x: T| !x)
}

fn isnan<T: Real>(call: &mut Call) -> Answer {
    map(call, |x: T| u8::from(x.wide().is_nan()))
}

/// Words: whether negative infinity counts, whether positive.
fn isinf<T: Real>(call: &mut Call) -> Answer {
    let (negative, positive) = (call.words.flag(), call.words.flag());
    map(call, |x: T| {
        let x = x.wide();
        u8::from(x.is_infinite() && if x < 0.0 { negative } else { positive })
    })
}

export!("relu", relu, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("abs", abs, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("neg", neg, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("sign", sign, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("not", not);
export!("bit_not", bit_not, i8 i16 i32 i64 u8 u16 u32 u64);
export!("isnan", isnan, f32 f64);
export!("isinf", isinf, f32 f64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even() {
        let rounded = [0.5, 1.5, -2.5, 2.4, 1e300].map(round_half_even);
        assert_eq!(rounded, [0.0, 2.0, -2.0, 2.0, 1e300]);
        assert!(round_half_even(-0.2).is_sign_negative());
    }
}
