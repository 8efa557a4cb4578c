//! Tensors in numpy's file format: little-endian, in C order.

use std::fs;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::metadata::nbytes;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Of the data in a file.
const ALIGNMENT: usize = 64;
const CODES: [(&str, &str); 12] = [
    ("bool", "|b1"),
    ("int8", "|i1"),
    ("uint8", "|u1"),
    ("int16", "<i2"),
    ("uint16", "<u2"),
    ("int32", "<i4"),
    ("uint32", "<u4"),
    ("int64", "<i8"),
    ("uint64", "<u8"),
    ("float16", "<f2"),
    ("float32", "<f4"),
    ("float64", "<f8"),
];

/// A dense array in C order; its data are little-endian.
pub struct Array {
    pub dtype: String,
    pub shape: Vec<u64>,
    pub data: Vec<u8>,
}

/// Reads an array from a file.
pub fn read(path: &Path) -> Result<Array> {
    let refuse = |reason: &str| Error::new(Kind::Input, format!("{}: {reason}", path.display()));
    let bytes = fs::read(path).map_err(|e| refuse(&e.to_string()))?;
    parse(&bytes).map_err(refuse)
}

fn parse(bytes: &[u8]) -> std::result::Result<Array, &'static str> {
    const SHORT: &str = "the NPY header ends early";
    let rest = bytes.strip_prefix(MAGIC).ok_or("not in NPY format")?;
    let (version, rest) = rest.split_at_checked(2).ok_or(SHORT)?;
    let width = if version[0] == 1 { 2 } else { 4 };
    let (length, rest) = rest.split_at_checked(width).ok_or(SHORT)?;
    let length = length
        .iter()
        .rev()
        .fold(0, |n, &byte| n << 8 | usize::from(byte));
    let (header, data) = rest.split_at_checked(length).ok_or(SHORT)?;
    let header = std::str::from_utf8(header).map_err(|_| "the NPY header is no text")?;
    let code = between(header, "'descr': '", "'").ok_or("the NPY header has no dtype")?;
    let (dtype, _) = CODES
        .iter()
        .find(|(_, known)| *known == code)
        .ok_or("the NPY data should be little-endian numbers")?;
    if between(header, "'fortran_order': ", ",") != Some("False") {
        return Err("the NPY data should be in C order");
    }
    let shape = between(header, "'shape': (", ")").ok_or("the NPY header has no shape")?;
    let extents = shape
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let shape: Vec<u64> = extents
        .map(|text| text.parse().map_err(|_| "the NPY header has no shape"))
        .collect::<std::result::Result<_, _>>()?;
    let nbytes = nbytes(dtype, shape.iter().copied()).ok_or("the array is too large")?;
    let data = data.get(..nbytes).ok_or("the NPY data end early")?;
    Ok(Array {
        dtype: dtype.to_string(),
        shape,
        data: data.to_vec(),
    })
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// Writes an array to a file.
pub fn write(path: &Path, array: &Array) -> Result<()> {
    let refuse = |reason: String| Error::new(Kind::Other, format!("{}: {reason}", path.display()));
    let (_, code) = CODES
        .iter()
        .find(|(dtype, _)| *dtype == array.dtype)
        .ok_or_else(|| refuse(format!("numpy has no {}", array.dtype)))?;
    let extents: Vec<String> = array.shape.iter().map(u64::to_string).collect();
    let comma = if extents.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", extents.join(", "));
    let mut header = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': {shape}, }}");
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header += &" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded);
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    let bytes = [MAGIC, &[1, 0], &length, header.as_bytes(), &array.data].concat();
    fs::write(path, bytes).map_err(|e| refuse(e.to_string()))
}
