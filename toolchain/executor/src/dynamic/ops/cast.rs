//! Conversions between dtypes. Floats become integers as in Rust: towards 0, and no further than the
//! integer's range; NaN becomes 0. Integers wrap around.

use crate::dynamic::call::{room, Answer, Call};

/// A half-precision float's bits; computed with as float32.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Half(u16);

/// The upper half of a float32.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Brain(u16);

/// A byte that is 0 or 1.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bool(u8);

impl Half {
    fn wide(self) -> f32 {
        let sign = u32::from(self.0 & 0x8000) << 16;
        let exponent = u32::from(self.0 >> 10) & 31;
        let fraction = u32::from(self.0 & 0x3ff);
        match exponent {
            // 2^-24 times the fraction is exact.
            0 => f32::from_bits(sign | 0x3f80_0000) * fraction as f32 / 16_777_216.0,
            31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
            _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
        }
    }

    /// The nearest, of two as near the even one.
    fn of(number: f32) -> Half {
        let bits = number.to_bits();
        let sign = (bits >> 16 & 0x8000) as u16;
        let size = bits & 0x7fff_ffff;
        if size > 0x7f80_0000 {
            return Half(sign | 0x7e00);
        }
        if size >= 0x4780_0000 {
            return Half(sign | 0x7c00);
        }
        if size < 0x3880_0000 {
            // Below the smallest normal half: a multiple of 2^-24, rounded by the addition.
            let scaled = f32::from_bits(size) + 0.5;
            return Half(sign | (scaled.to_bits() - 0x3f00_0000) as u16);
        }
        let rounded = size - 0x3800_0000 + 0xfff + (size >> 13 & 1);
        Half(sign | (rounded >> 13) as u16)
    }
}

impl Brain {
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    fn of(number: f32) -> Brain {
        let bits = number.to_bits();
        if number.is_nan() {
            return Brain((bits >> 16) as u16 | 0x40);
        }
        Brain((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }
}

trait To<T> {
    fn to(self) -> T;
}

macro_rules! plain {
    (all: $($from:ident)+) => { $(plain!(from $from);)+ };
    (from $from:ident) => {
        plain!(pairs $from: i8 i16 i32 i64 u8 u16 u32 u64 f32 f64);
        impl To<Bool> for $from {
            fn to(self) -> Bool { Bool(u8::from(self != 0 as $from)) }
        }
        impl To<$from> for Bool {
            fn to(self) -> $from { u8::from(self.0 != 0) as $from }
        }
        impl To<Half> for $from {
            fn to(self) -> Half { Half::of(self as f32) }
        }
        impl To<$from> for Half {
            fn to(self) -> $from { self.wide() as $from }
        }
        impl To<Brain> for $from {
            fn to(self) -> Brain { Brain::of(self as f32) }
        }
        impl To<$from> for Brain {
            fn to(self) -> $from { self.wide() as $from }
        }
    };
    (pairs $from:ident: $($to:ident)+) => {
        $(impl To<$to> for $from {
            fn to(self) -> $to { self as $to }
        })+
    };
}

plain!(all: i8 i16 i32 i64 u8 u16 u32 u64 f32 f64);

macro_rules! through_float {
    ($($from:ident $to:ident $value:ident => $result:expr;)+) => {
        $(impl To<$to> for $from {
            fn to(self) -> $to {
                let $value = self;
                $result
            }
        })+
    };
}

through_float!(
    Half Bool x => Bool(u8::from(x.wide() != 0.0));
    Brain Bool x => Bool(u8::from(x.wide() != 0.0));
    Bool Half x => Half::of(f32::from(x.0));
    Bool Brain x => Brain::of(f32::from(x.0));
    Half Brain x => Brain::of(x.wide());
    Brain Half x => Half::of(x.wide());
);

fn cast<A: Copy + To<B>, B>(call: &mut Call) -> Answer {
    let data = call.tensor(0)?;
    let mut out = room(data.dims.clone(), std::mem::size_of::<B>())?;
    let pairs = out.items_mut::<B>().iter_mut().zip(data.items::<A>());
    pairs.for_each(|(to, &from)| *to = from.to());
    call.set_tensor(0, out);
    Ok(())
}

macro_rules! exports {
    ($($from:ident $name:literal: $($to:ident $suffix:literal)+;)+) => {
        $($(
            export!(exact concat!("wgd_cast_", $name, "_", $suffix), cast::<$from, $to>);
        )+)+
    };
}

macro_rules! exports_from {
    ($($from:ident $name:literal)+) => {
        $(exports!($from $name:
            i8 "i8" i16 "i16" i32 "i32" i64 "i64" u8 "u8" u16 "u16" u32 "u32" u64 "u64"
            f32 "f32" f64 "f64" Bool "bool" Half "f16" Brain "bf16";);)+
    };
}

impl To<Bool> for Bool {
    fn to(self) -> Bool {
        self
    }
}

impl To<Half> for Half {
    fn to(self) -> Half {
        self
    }
}

impl To<Brain> for Brain {
    fn to(self) -> Brain {
        self
    }
}

exports_from!(
    i8 "i8" i16 "i16" i32 "i32" i64 "i64" u8 "u8" u16 "u16" u32 "u32" u64 "u64" f32 "f32"
    f64 "f64" Bool "bool" Half "f16" Brain "bf16"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_there_and_back() {
        for bits in 0..=u16::MAX {
            let wide = Half(bits).wide();
            if wide.is_nan() {
                assert!(Half::of(wide).wide().is_nan());
            } else {
                assert_eq!(Half::of(wide).0, bits);
            }
        }
    }

    #[test]
    fn a_half_is_the_nearest_one() {
        assert_eq!(Half::of(65519.9).0, 0x7bff);
        assert_eq!(Half::of(65520.0).0, 0x7c00);
        assert_eq!(Half::of(1.0 + 0.000_488_281_25).0, 0x3c00);
        assert_eq!(Half::of(-1e-10).0, 0x8000);
        assert_eq!(Brain::of(1.0 + 0.003_906_25).0, 0x3f80);
    }
}
