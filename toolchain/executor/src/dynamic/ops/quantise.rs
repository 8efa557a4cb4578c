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

/// The scale and the zero point of every element of a tensor.
struct Steps {
    scale: Tensor,
    zero: Option<Tensor>,
    /// Which of the scales holds: that of element i's block of so many elements, of so many blocks.
    inner: usize,
    count: usize,
}

impl Steps {
    /// Words: the axis. Inputs: data, scales, zero points (may be left out).
    fn read(call: &mut Call, data: &Tensor) -> Result<Steps, Failure> {
        let given = call.words.int();
        let scale = call.tensor(1)?;
        let (inner, count) = match scale.count() {
            1 => (usize::MAX, 1),
            count => {
                let at = axis(given.into(), data.dims.len())?;
                if count != data.dims[at] {
                    return Err("it has not one scale per element of its axis".to_string());
                }
                (around(&data.dims, at).1, count)
            }
        };
        let zero = match call.has(2) {
            true => Some(call.tensor(2)?),
            false => None,
        };
        Ok(Steps {
            scale,
            zero,
            inner,
            count,
        })
    }

    /// The scale and the zero point of element i.
    fn of<T: Stored>(&self, i: usize) -> (f32, f64) {
        let which = i / self.inner % self.count;
        let zero = self.zero.as_ref();
        (
            self.scale.items::<f32>()[which],
            zero.map_or(0.0, |zero| zero.items::<T>()[which].number()),
        )
    }
}

/// For words and inputs see `Steps::read`.
fn quantise<T: Stored>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let steps = Steps::read(call, &data)?;
    let mut out = call.room::<T>(data.dims.clone())?;
    let pairs = out.items_mut::<T>().iter_mut().zip(data.items::<f32>());
    for (i, (to, &x)) in pairs.enumerate() {
        let (scale, zero) = steps.of::<T>(i);
        *to = T::nearest(round_half_even((x / scale).into()) + zero);
    }
    call.set_tensor(0, out);
    Ok(())
}

/// The same way back.
fn dequantise<T: Stored>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let steps = Steps::read(call, &data)?;
    let mut out = call.room::<f32>(data.dims.clone())?;
    let pairs = out.items_mut::<f32>().iter_mut().zip(data.items::<T>());
    for (i, (to, &x)) in pairs.enumerate() {
        let (scale, zero) = steps.of::<T>(i);
        *to = (x.number() - zero) as f32 * scale;
    }
    call.set_tensor(0, out);
    Ok(())
}

export!("quantise", quantise, i8 u8 i16 u16 i32);
export!("dequantise", dequantise, i8 u8 i16 u16 i32);
