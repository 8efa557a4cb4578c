//! Element-wise operators of two tensors, broadcast to each other; and the choice between two.

use crate::dynamic::call::{room, Answer, Call, Failure};
use crate::dynamic::ops::shape::{broadcast, broadcast_steps};
use crate::dynamic::value::{elements, Dims, Tensor};
use crate::operators::binary::{Integer, Remainder};
use crate::operators::number::Number;

/// `combine` of every pair of elements. Neighbouring axes along which both operands go on evenly are
/// one, so that the inner loop is long; it is one of four, each for steps that are known.
pub fn zip<A: Copy, B: Copy, C>(
    a: &Tensor,
    b: &Tensor,
    combine: impl Fn(A, B) -> C + Copy,
) -> Result<Tensor, Failure> {
    let dims = broadcast(&a.dims, &b.dims)?;
    let mut out = room(dims, std::mem::size_of::<C>())?;
    if out.count() == 0 {
        return Ok(out);
    }
    let rank = out.dims.len();
    let steps = [
        broadcast_steps(&a.dims, rank),
        broadcast_steps(&b.dims, rank),
    ];
    let (outer, steps) = merged(&out.dims, steps);
    let (last, rest) = outer.split_last().expect("there is at least one axis");
    let (from_a, from_b) = (a.items::<A>(), b.items::<B>());
    let (step_a, step_b) = (steps[0][rest.len()], steps[1][rest.len()]);
    let mut index = vec![0; rest.len()];
    let (mut at_a, mut at_b) = (0, 0);
    for row in out.items_mut::<C>().chunks_exact_mut(*last) {
        let (a, b) = (&from_a[at_a..], &from_b[at_b..]);
        match (step_a, step_b) {
            (1, 1) => (row.iter_mut().zip(a).zip(b)).for_each(|((o, &a), &b)| *o = combine(a, b)),
            (1, 0) => {
                let b = b[0];
                row.iter_mut().zip(a).for_each(|(o, &a)| *o = combine(a, b))
            }
            (0, 1) => {
                let a = a[0];
                row.iter_mut().zip(b).for_each(|(o, &b)| *o = combine(a, b))
            }
            _ => {
                for (k, o) in row.iter_mut().enumerate() {
                    *o = combine(a[k * step_a], b[k * step_b]);
                }
            }
        }
        for k in (0..rest.len()).rev() {
            index[k] += 1;
            at_a += steps[0][k];
            at_b += steps[1][k];
            if index[k] < rest[k] {
                break;
            }
            index[k] = 0;
            at_a -= steps[0][k] * rest[k];
            at_b -= steps[1][k] * rest[k];
        }
    }
    Ok(out)
}

/// The axes without those that go on where the one before ends, for both operands; at least one.
fn merged(dims: &[usize], steps: [Vec<usize>; 2]) -> (Dims, [Vec<usize>; 2]) {
    let mut kept: Dims = Vec::new();
    let mut of = [Vec::new(), Vec::new()];
    for (k, &extent) in dims.iter().enumerate() {
        if extent == 1 {
            continue;
        }
        let joins =
            !kept.is_empty() && (0..2).all(|i| of[i].last() == Some(&(steps[i][k] * extent)));
        if joins {
            *kept.last_mut().expect("not empty") *= extent;
            (0..2).for_each(|i| *of[i].last_mut().expect("not empty") = steps[i][k]);
        } else {
            kept.push(extent);
            (0..2).for_each(|i| of[i].push(steps[i][k]));
        }
    }
    if kept.is_empty() {
        return (vec![1], [vec![0], vec![0]]);
    }
    (kept, of)
}

/// A dtype's loops. Models compute with float32, for which each operator has a loop of its own, with
/// vectors; for the others the operators share one that calls them, or the executor would take
/// minutes to compile.
pub trait Element: Copy + 'static {
    fn zipped<C>(
        a: &Tensor,
        b: &Tensor,
        combine: impl Fn(Self, Self) -> C + Copy,
    ) -> Result<Tensor, Failure> {
        let shared: &dyn Fn(Self, Self) -> C = &combine;
        zip(a, b, shared)
    }

    fn mapped<C>(data: &Tensor, change: impl Fn(Self) -> C) -> Result<Tensor, Failure> {
        let shared: &dyn Fn(Self) -> C = &change;
        each(data, shared)
    }
}

impl Element for f32 {
    fn zipped<C>(
        a: &Tensor,
        b: &Tensor,
        combine: impl Fn(f32, f32) -> C + Copy,
    ) -> Result<Tensor, Failure> {
        zip(a, b, combine)
    }

    fn mapped<C>(data: &Tensor, change: impl Fn(f32) -> C) -> Result<Tensor, Failure> {
        each(data, change)
    }
}

macro_rules! shared_loops {
    ($($dtype:ident)+) => { $(impl Element for $dtype {})+ };
}

shared_loops!(f64 i8 i16 i32 i64 u8 u16 u32 u64);

/// `change` of every element.
fn each<A: Copy, C>(data: &Tensor, change: impl Fn(A) -> C) -> Result<Tensor, Failure> {
    let mut out = room(data.dims.clone(), std::mem::size_of::<C>())?;
    let pairs = out.items_mut::<C>().iter_mut().zip(data.items::<A>());
    pairs.for_each(|(to, &from)| *to = change(from));
    Ok(out)
}

/// Whether a dtype is float32, which has vectors.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub fn is_float32<T: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<f32>()
}

fn binary<A: Element, C>(call: &mut Call, combine: impl Fn(A, A) -> C + Copy) -> Answer {
    let out = A::zipped(&call.tensor(0)?, &call.tensor(1)?, combine)?;
    call.set_tensor(0, out);
    Ok(())
}

/// Subtraction and division, which wrap around; a division by 0 gives 0, as it does not in ONNX,
/// which leaves it open.
trait Arithmetic: Number {
    fn minus(self, other: Self) -> Self;
    fn over(self, other: Self) -> Self;
}

macro_rules! arithmetic {
    (floats $($dtype:ident)+) => {
        $(impl Arithmetic for $dtype {
            fn minus(self, other: Self) -> Self { self - other }
            fn over(self, other: Self) -> Self { self / other }
        })+
    };
    (integers $($dtype:ident)+) => {
        $(impl Arithmetic for $dtype {
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn over(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
        })+
    };
}

arithmetic!(floats f32 f64);
arithmetic!(integers i8 i16 i32 i64 u8 u16 u32 u64);

fn add<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, T::plus)
}

fn sub<T: Arithmetic + Element>(call: &mut Call) -> Answer {
    binary(call, T::minus)
}

fn mul<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, T::times)
}

fn div<T: Arithmetic + Element>(call: &mut Call) -> Answer {
    binary(call, T::over)
}

fn larger<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, T::larger)
}

fn smaller<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, T::smaller)
}

fn modulo<T: Remainder + Element>(call: &mut Call) -> Answer {
    binary(call, T::modulo)
}

fn remainder<T: Remainder + Element>(call: &mut Call) -> Answer {
    binary(call, T::remainder)
}

fn less<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| u8::from(a < b))
}

fn less_equal<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| u8::from(a <= b))
}

fn greater<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| u8::from(a > b))
}

fn greater_equal<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| u8::from(a >= b))
}

fn equal<T: Number + Element>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| u8::from(a == b))
}

fn bit_and<T: Element + std::ops::BitAnd<Output = T>>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| a & b)
}

fn bit_or<T: Element + std::ops::BitOr<Output = T>>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| a | b)
}

fn bit_xor<T: Element + std::ops::BitXor<Output = T>>(call: &mut Call) -> Answer {
    binary(call, |a: T, b: T| a ^ b)
}

fn shift_left<T: Integer + Element>(call: &mut Call) -> Answer {
    binary(call, T::shift_left)
}

fn shift_right<T: Integer + Element>(call: &mut Call) -> Answer {
    binary(call, T::shift_right)
}

fn pow_i32(call: &mut Call) -> Answer {
    binary(call, |a: i32, b: i32| a.power(b.into()))
}

fn pow_i64(call: &mut Call) -> Answer {
    binary(call, |a: i64, b: i64| a.power(b))
}

fn pow_f32(call: &mut Call) -> Answer {
    binary(
        call,
        |a: f32, b: f32| if b == 2.0 { a * a } else { a.powf(b) },
    )
}

fn pow_f64(call: &mut Call) -> Answer {
    binary(call, f64::powf)
}

/// The slope times the element where it is negative.
fn prelu<T: Number + Element>(call: &mut Call) -> Answer {
    binary(
        call,
        |x: T, slope: T| {
            if x < T::ZERO {
                x.times(slope)
            } else {
                x
            }
        },
    )
}

/// Inputs: a bool, then what is taken where it holds and where it does not.
fn choose<T: Copy>(call: &mut Call) -> Answer {
    let (condition, yes, no) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let either = zip::<T, T, [T; 2]>(&yes, &no, |a, b| [a, b])?;
    let out = zip::<u8, [T; 2], T>(&condition, &either, |c, [a, b]| if c != 0 { a } else { b })?;
    call.set_tensor(0, out);
    Ok(())
}

/// Words: the axis of the first operand that the second one's first axis stands at. Gives the second
/// one further axes of extent 1, so that it broadcasts as opsets before 7 had it.
fn align(call: &mut Call) -> Answer {
    let at = call.words.int();
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let rank = a.dims.len();
    let at = crate::dynamic::call::axis(at.into(), rank)?;
    let mut dims = b.dims.clone();
    dims.resize(dims.len().max(rank.saturating_sub(at)), 1);
    debug_assert!(elements(&dims) == Some(b.count()));
    call.set_tensor(0, b.reshaped(dims));
    Ok(())
}

export!("add", add, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("sub", sub, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("mul", mul, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("div", div, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("max", larger, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("min", smaller, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("mod", modulo, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("fmod", remainder, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("less", less, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("less_equal", less_equal, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("greater", greater, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("greater_equal", greater_equal, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("equal", equal, f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
export!("bit_and", bit_and, i8 i16 i32 i64 u8 u16 u32 u64);
export!("bit_or", bit_or, i8 i16 i32 i64 u8 u16 u32 u64);
export!("bit_xor", bit_xor, i8 i16 i32 i64 u8 u16 u32 u64);
export!("shift_left", shift_left, i8 i16 i32 i64 u8 u16 u32 u64);
export!("shift_right", shift_right, i8 i16 i32 i64 u8 u16 u32 u64);
export!("pow_i32", pow_i32);
export!("pow_i64", pow_i64);
export!("pow_f32", pow_f32);
export!("pow_f64", pow_f64);
export!("prelu", prelu, f32 f64);
export!("where", choose, u8 u16 u32 u64);
export!("align", align);
