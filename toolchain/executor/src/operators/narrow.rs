//! Numbers narrower than what WebAssembly computes with: bfloat16, floats of 8 and 4 bits, integers
//! of 4 and 2 bits. They are stored; what computes with them converts.

use super::{Words, DONE};

/// Words: how many elements. What stands in a table of 256 for every byte.
unsafe fn lookup<T: Copy>(mut words: Words, x: *const u8, table: *const T, out: *mut T) -> i32 {
    for i in 0..words.size() {
        *out.add(i) = *table.add(usize::from(*x.add(i)));
    }
    DONE
}

/// Words: how many elements. A bfloat16 is the upper half of a float32.
unsafe fn from_bfloat16<T: From<f32>>(mut words: Words, x: *const u16, out: *mut T) -> i32 {
    for i in 0..words.size() {
        *out.add(i) = T::from(f32::from_bits(u32::from(*x.add(i)) << 16));
    }
    DONE
}

/// A format with a sign, an exponent and a mantissa, from the highest bit to the lowest.
#[derive(Clone, Copy)]
struct Format {
    mantissa_bits: i32,
    bias: i32,
    /// The code of the largest finite number.
    largest: i32,
    /// The code of what is larger, and of infinity.
    overflow: i32,
    nan: i32,
    /// The sign's bit.
    sign: i32,
    has_negative_zero: bool,
}

impl Format {
    fn read(words: &mut Words) -> Format {
        Format {
            mantissa_bits: words.int(),
            bias: words.int(),
            largest: words.int(),
            overflow: words.int(),
            nan: words.int(),
            sign: words.int(),
            has_negative_zero: words.flag(),
        }
    }

    /// The nearest number's code; of two that are equally near, that of the even one.
    fn encode(self, x: f64) -> i32 {
        let magnitude = if x.is_nan() {
            self.nan
        } else if x.is_infinite() {
            self.overflow
        } else {
            match self.rounded(x.abs()) {
                code if code > i64::from(self.largest) => self.overflow,
                code => code as i32,
            }
        };
        if x.is_sign_negative() && (magnitude != 0 || self.has_negative_zero) {
            magnitude | self.sign
        } else {
            magnitude
        }
    }

    /// The code if exponents had no end.
    fn rounded(self, x: f64) -> i64 {
        const BITS: i32 = 52;
        let field = (x.to_bits() >> BITS) as i32;
        let implicit = u64::from(field > 0) << BITS;
        let mantissa = x.to_bits() & ((1 << BITS) - 1) | implicit;
        let lowest = 1 - self.bias;
        let above = (field.max(1) - 1023 - lowest).max(0);
        // Below the lowest exponent numbers are as far apart as just above it.
        let shift = BITS - self.mantissa_bits + (lowest + above) - (field.max(1) - 1023);
        if shift > BITS + 2 {
            return 0;
        }
        let (kept, rest) = (mantissa >> shift, mantissa & ((1 << shift) - 1));
        let half = 1 << (shift - 1);
        let up = rest > half || (rest == half && kept % 2 == 1);
        // A carry goes on into the exponent, which is what it should do.
        (i64::from(above) << self.mantissa_bits) + (kept + u64::from(up)) as i64
    }
}

trait Code {
    fn from_int(code: i32) -> Self;
}

impl Code for u8 {
    fn from_int(code: i32) -> u8 {
        code as u8
    }
}

impl Code for u16 {
    fn from_int(code: i32) -> u16 {
        code as u16
    }
}

unsafe fn encode<S: Copy + Into<f64>, T: Code>(mut words: Words, x: *const S, out: *mut T) -> i32 {
    let format = Format::read(&mut words);
    for i in 0..words.size() {
        *out.add(i) = T::from_int(format.encode((*x.add(i)).into()));
    }
    DONE
}

/// Words: the fields of `Format`, in order; how many elements.
unsafe fn encode_singles<T: Code>(words: Words, x: *const f32, out: *mut T) -> i32 {
    encode(words, x, out)
}

/// The same.
unsafe fn encode_doubles<T: Code>(words: Words, x: *const f64, out: *mut T) -> i32 {
    encode(words, x, out)
}

/// Words: how to round (0 down, 1 up, 2 to the nearest), whether what is too large becomes the
/// largest number, how many elements.
/// A power of two is the exponent of a float32, without the sign; NaN and infinity are 255. Source:
/// onnx.numpy_helper.to_float8e8m0.
unsafe fn encode_exponents<T: Code>(mut words: Words, x: *const f32, out: *mut T) -> i32 {
    let (mode, saturates) = (words.int(), words.flag());
    for i in 0..words.size() {
        *out.add(i) = T::from_int(exponent((*x.add(i)).to_bits(), mode, saturates));
    }
    DONE
}

fn exponent(bits: u32, mode: i32, saturates: bool) -> i32 {
    const HALF: u32 = 1 << 22;
    let (field, fraction) = ((bits >> 23 & 0xff) as i32, bits & ((1 << 23) - 1));
    let up = match mode {
        0 => false,
        1 => fraction > 0,
        // Of two that are equally near the upper one, but for the least.
        _ => fraction > HALF || (fraction == HALF && field > 0),
    };
    if field == 0xff || !up || (field == 0xfe && saturates) {
        field
    } else {
        field + 1
    }
}

export!("lookup", lookup(x: *const u8, table: *const T, out: *mut T), i8 u8 f32);
export!("from_bfloat16", from_bfloat16(x: *const u16, out: *mut T), f32);
export!("encode_f32", encode_singles(x: *const f32, out: *mut T), u8 u16);
export!("encode_f64", encode_doubles(x: *const f64, out: *mut T), u8 u16);
export!("encode_exponents_f32", encode_exponents(x: *const f32, out: *mut T), u8);

#[cfg(test)]
mod tests {
    use super::{exponent, Format};

    const E4M3FN: Format = Format {
        mantissa_bits: 3,
        bias: 7,
        largest: 0x7e,
        overflow: 0x7f,
        nan: 0x7f,
        sign: 0x80,
        has_negative_zero: true,
    };

    #[test]
    fn halfway_cases_become_even() {
        let codes =
            |values: &[f64]| -> Vec<i32> { values.iter().map(|&x| E4M3FN.encode(x)).collect() };
        assert_eq!(
            codes(&[1.0, 1.0625, 1.1875, 1.9375]),
            [0x38, 0x38, 0x3a, 0x40]
        );
        assert_eq!(codes(&[0.0, -0.0, 0.001953125]), [0, 0x80, 1]);
        // Half of the least number, and what is just above that.
        assert_eq!(codes(&[0.0009765625, 0.0009765626, 5e-324]), [0, 1, 0]);
        assert_eq!(
            codes(&[448.0, 464.0, 464.1, -1e300]),
            [0x7e, 0x7e, 0x7f, 0xff]
        );
        assert_eq!(codes(&[f64::NAN, f64::NEG_INFINITY]), [0x7f, 0xff]);
    }

    #[test]
    fn powers_of_two_are_exponents() {
        let code = |x: f32, mode| exponent(x.to_bits(), mode, true);
        assert_eq!([code(1.0, 1), code(1.1, 1), code(1.1, 0)], [127, 128, 127]);
        assert_eq!([code(1.5, 2), code(1.4, 2)], [128, 127]);
        assert_eq!([code(f32::MAX, 1), code(f32::NAN, 1)], [254, 255]);
        assert_eq!(exponent(f32::MAX.to_bits(), 1, false), 255);
    }
}
