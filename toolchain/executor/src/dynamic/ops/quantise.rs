//! Between floats and integers that stand for them by scale and zero point.

use crate::dynamic::call::{axis, Answer, Call, Failure};
use crate::dynamic::ops::select::around;
use crate::dynamic::ops::unary::round_half_even;
use crate::dynamic::value::Tensor;

/// Integers that quantised values are stored as.
trait Stored: Copy {
    fn number(self) -> f64;
    fn nearest(x: f64) -> Self;
}

macro_rules! stored {
    ($($dtype:ident)+) => {
        $(impl Stored for $dtype {
            fn number(self) -> f64 {
                self as f64
            }
            fn nearest(x: f64) -> Self {
                x as $dtype
            }
        })+
    };
}

stored!(i8 u8 i16 u16 i32);

/// Of element i of `data` which scale holds: its block of so many elements, of so many blocks.
struct Scales {
    inner: usize,
    count: usize,
}

impl Scales {
    fn new(data: &Tensor, scale: &Tensor, given: i64) -> Result<Scales, Failure> {
        if scale.count() == 1 {
            return Ok(Scales {
                inner: usize::MAX,
                count: 1,
            });
        }
        let at = axis(given, data.dims.len())?;
        if scale.count() != data.dims[at] {
            return Err("it has not one scale per element of its axis".to_string());
        }
        let (_, inner) = around(&data.dims, at);
        Ok(Scales {
            inner,
            count: data.dims[at],
        })
    }

    fn of(&self, i: usize) -> usize {
        i / self.inner % self.count
    }
}

/// Words: the axis. Inputs: data, scales, zero points (may be left out).
fn quantise<T: Stored>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let (data, scale) = (call.tensor(0)?, call.tensor(1)?);
    let scales = Scales::new(&data, &scale, given.into())?;
    let zero = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let mut out = call.room::<T>(data.dims.clone())?;
    let pairs = out.items_mut::<T>().iter_mut().zip(data.items::<f32>());
    for (i, (to, &x)) in pairs.enumerate() {
        let which = scales.of(i);
        let shift = zero
            .as_ref()
            .map_or(0.0, |zero| zero.items::<T>()[which].number());
        let scaled = x / scale.items::<f32>()[which];
        *to = T::nearest(round_half_even(scaled.into()) + shift);
    }
    call.set_tensor(0, out);
    Ok(())
}

/// The same way back.
fn dequantise<T: Stored>(call: &mut Call) -> Answer {
    let given = call.words.int();
    let (data, scale) = (call.tensor(0)?, call.tensor(1)?);
    let scales = Scales::new(&data, &scale, given.into())?;
    let zero = match call.has(2) {
        true => Some(call.tensor(2)?),
        false => None,
    };
    let mut out = call.room::<f32>(data.dims.clone())?;
    let pairs = out.items_mut::<f32>().iter_mut().zip(data.items::<T>());
    for (i, (to, &x)) in pairs.enumerate() {
        let which = scales.of(i);
        let shift = zero
            .as_ref()
            .map_or(0.0, |zero| zero.items::<T>()[which].number());
        *to = (x.number() - shift) as f32 * scale.items::<f32>()[which];
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("quantise", quantise, i8 u8 i16 u16 i32);
export!("dequantise", dequantise, i8 u8 i16 u16 i32);
