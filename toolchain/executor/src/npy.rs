//! Reads and writes NPY, the file format of one tensor that every numerical library knows.
//!
//! Format: numpy.lib.format, versions 1.0, 2.0 and 3.0. Only C order and little-endian numbers, which
//! is how the graph holds its tensors.

use std::io::{Read, Write};

use crate::graph::DType;

const MAGIC: &[u8] = b"\x93NUMPY";
/// A header names a type and a few extents; a longer one is a broken file, not worth the memory.
const HEADER_LIMIT: usize = 1 << 16;

/// What a file says of its array.
#[derive(Debug, PartialEq)]
pub struct Header {
    /// NPY's type code with the byte order, e.g. "<f4".
    pub descr: String,
    pub fortran_order: bool,
    pub shape: Vec<i64>,
}

/// Reads a file up to its data: the shape of an array which must have `dtype`.
///
/// # Errors
/// Not NPY, or another type or order.
pub fn read_shape(file: &mut impl Read, dtype: DType) -> Result<Vec<i64>, String> {
    let header = read_header(file)?;
    check_dtype(&header.descr, dtype)?;
    if header.fortran_order {
        return Err(
            "Fortran order: save it in C order (numpy.save of numpy.ascontiguousarray)".into(),
        );
    }
    Ok(header.shape)
}

/// Reads the data of an array of exactly as many bytes.
///
/// # Errors
/// There are more or fewer.
pub fn read_data(file: &mut impl Read, data: &mut [u8]) -> Result<(), String> {
    fill(file, data, "the data ends early")?;
    match file.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("there are more bytes than the shape needs".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Writes an array as version 1.0.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    file: &mut impl Write,
    dtype: DType,
    shape: &[i64],
    data: &[u8],
) -> std::io::Result<()> {
    let order = if dtype.nbytes == 1 { "|" } else { "<" };
    let mut text = ["{'descr': '", order, dtype.code, "', "].concat();
    text.push_str("'fortran_order': False, 'shape': ");
    text.push_str(&describe(shape));
    text.push_str(", }");
    // The data begins at a multiple of 64; the header's last byte is a line's end.
    let prefix = MAGIC.len() + 4;
    while (prefix + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    file.write_all(MAGIC)?;
    file.write_all(&[1, 0])?;
    file.write_all(&(text.len() as u16).to_le_bytes())?;
    file.write_all(text.as_bytes())?;
    file.write_all(data)?;
    file.flush()
}

/// A shape as Python writes a tuple: "()", "(3,)", "(2, 3)".
fn describe(shape: &[i64]) -> String {
    let extents: Vec<String> = shape.iter().map(i64::to_string).collect();
    let comma = if shape.len() == 1 { ",)" } else { ")" };
    ["(", &extents.join(", "), comma].concat()
}

fn fill(file: &mut impl Read, data: &mut [u8], when_short: &str) -> Result<(), String> {
    file.read_exact(data).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => when_short.into(),
        _ => error.to_string(),
    })
}

fn check_dtype(descr: &str, dtype: DType) -> Result<(), String> {
    let mismatch = || [dtype.name, " expected, not '", descr, "'"].concat();
    let code = descr.get(1..).ok_or_else(mismatch)?;
    match &descr[..1] {
        "<" | "=" | "|" if code == dtype.code => Ok(()),
        ">" if code == dtype.code && dtype.nbytes == 1 => Ok(()),
        ">" if code == dtype.code => Err("big-endian numbers: save them little-endian".into()),
        _ => Err(mismatch()),
    }
}

fn read_header(file: &mut impl Read) -> Result<Header, String> {
    const SHORT: &str = "the NPY header ends early";
    let mut start = [0; 8];
    fill(
        file,
        &mut start,
        "not an NPY file: it is shorter than its signature",
    )?;
    if &start[..6] != MAGIC {
        return Err("not an NPY file: it does not begin with its signature".into());
    }
    let length = match start[6] {
        1 => {
            let mut field = [0; 2];
            fill(file, &mut field, SHORT)?;
            u16::from_le_bytes(field) as usize
        }
        2 | 3 => {
            let mut field = [0; 4];
            fill(file, &mut field, SHORT)?;
            u32::from_le_bytes(field) as usize
        }
        version => return Err(["unknown NPY version ", &version.to_string()].concat()),
    };
    if length > HEADER_LIMIT {
        return Err("the NPY header is too long".into());
    }
    let mut text = vec![0; length];
    fill(file, &mut text, SHORT)?;
    parse(&text).ok_or_else(|| "the NPY header is not one that numpy writes".into())
}

/// Parses the header's text: a Python dictionary of three entries in any order.
fn parse(text: &[u8]) -> Option<Header> {
    let mut rest = Literal(text);
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    rest.take(b"{")?;
    while rest.take(b"}").is_none() {
        let key = rest.string()?;
        rest.take(b":")?;
        match key.as_str() {
            "descr" => descr = Some(rest.string()?),
            "fortran_order" => fortran_order = Some(rest.boolean()?),
            "shape" => shape = Some(rest.tuple()?),
            _ => return None,
        }
        if rest.take(b",").is_none() {
            rest.take(b"}")?;
            break;
        }
    }
    rest.skip_spaces();
    if !rest.0.is_empty() {
        return None;
    }
    Some(Header {
        descr: descr?,
        fortran_order: fortran_order?,
        shape: shape?,
    })
}

/// The part of a Python literal that is still to be read.
struct Literal<'a>(&'a [u8]);

impl Literal<'_> {
    fn skip_spaces(&mut self) {
        while let Some(b' ' | b'\n' | b'\t') = self.0.first() {
            self.0 = &self.0[1..];
        }
    }

    fn take(&mut self, token: &[u8]) -> Option<()> {
        self.skip_spaces();
        self.0 = self.0.strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        self.skip_spaces();
        let quote = *self.0.first().filter(|c| **c == b'\'' || **c == b'"')?;
        let body = &self.0[1..];
        let end = body.iter().position(|c| *c == quote)?;
        self.0 = &body[end + 1..];
        // Plain characters only: the codes of types have no others.
        let plain = body[..end].iter().all(|c| c.is_ascii() && *c != b'\\');
        plain.then(|| String::from_utf8_lossy(&body[..end]).into_owned())
    }

    fn boolean(&mut self) -> Option<bool> {
        if self.take(b"True").is_some() {
            return Some(true);
        }
        self.take(b"False").map(|()| false)
    }

    fn tuple(&mut self) -> Option<Vec<i64>> {
        let mut extents = Vec::new();
        self.take(b"(")?;
        while self.take(b")").is_none() {
            extents.push(self.number()?);
            // Python 2 wrote long integers as 3L.
            let _ = self.take(b"L");
            if self.take(b",").is_none() {
                self.take(b")")?;
                break;
            }
        }
        Some(extents)
    }

    fn number(&mut self) -> Option<i64> {
        self.skip_spaces();
        let digits = self.0.iter().take_while(|c| c.is_ascii_digit()).count();
        let (number, rest) = self.0.split_at(digits);
        self.0 = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
