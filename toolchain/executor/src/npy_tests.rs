use super::{parse, read_data, read_shape, write, Header};
use crate::graph::{dtype, DType};

const BFLOAT16: DType = dtype("bfloat16", "V2", 2);
const BOOL: DType = dtype("bool", "b1", 1);
const INT64: DType = dtype("int64", "i8", 8);
const FLOAT32: DType = dtype("float32", "f4", 4);

const ONE_BY_TWO: &[u8] = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";

fn file(version: u8, header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

/// Reads a file of two numbers, whatever their shape.
fn read_floats(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut file = bytes;
    let shape = read_shape(&mut file, FLOAT32)?;
    assert_eq!(shape, [1, 2]);
    let mut data = vec![0; 8];
    read_data(&mut file, &mut data).map(|()| data)
}

#[test]
fn every_version_is_read() {
    for version in 1..=3 {
        let bytes = file(version, ONE_BY_TWO, b"abcdefgh");
        assert_eq!(read_floats(&bytes), Ok(b"abcdefgh".to_vec()));
    }
    let bytes = file(4, ONE_BY_TWO, b"abcdefgh");
    assert_eq!(read_floats(&bytes), Err("unknown NPY version 4".into()));
}

#[test]
fn what_is_written_is_read_back() {
    for shape in [&[][..], &[8][..], &[2, 4][..], &[8, 1, 1, 1][..]] {
        let mut bytes = Vec::new();
        write(
            &mut bytes,
            BOOL,
            shape,
            &b"abcdefgh"[..if shape.is_empty() { 1 } else { 8 }],
        )
        .unwrap();
        let mut data = vec![0; if shape.is_empty() { 1 } else { 8 }];
        let mut file = &bytes[..];
        assert_eq!(read_shape(&mut file, BOOL).unwrap(), shape);
        read_data(&mut file, &mut data).unwrap();
        assert_eq!(data, b"abcdefgh"[..data.len()]);
        assert_eq!((bytes.len() - data.len()) % 64, 0);
    }
}

#[test]
fn bfloat16_is_two_bytes_of_void() {
    let mut bytes = Vec::new();
    write(&mut bytes, BFLOAT16, &[1], b"ab").unwrap();
    assert!(bytes.windows(5).any(|w| w == b"'<V2'"));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = file(1, ONE_BY_TWO, b"abcdefgh");
    for end in 0..bytes.len() {
        assert!(read_floats(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn bytes_after_the_data_are_an_error() {
    let text = read_floats(&file(1, ONE_BY_TWO, b"abcdefghi")).unwrap_err();
    assert!(text.contains("more bytes"));
}

#[test]
fn other_types_and_orders_are_named() {
    let cases: [(&[u8], &str); 4] = [
        (
            b"{'descr': '>f4', 'fortran_order': False, 'shape': (1, 2), }",
            "big-endian",
        ),
        (
            b"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }",
            "float32 expected, not '<f8'",
        ),
        (
            b"{'descr': '', 'fortran_order': False, 'shape': (1, 2), }",
            "float32 expected, not ''",
        ),
        (
            b"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }",
            "Fortran order",
        ),
    ];
    for (header, expected) in cases {
        let text = read_floats(&file(1, header, b"abcdefgh")).unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_header_is_a_python_dictionary_in_any_order() {
    let text = b" {\"shape\":(3L,),'fortran_order' : True,\n'descr':'|i1'}  \n";
    let expected = Header {
        descr: "|i1".into(),
        fortran_order: true,
        shape: vec![3],
    };
    assert_eq!(parse(text), Some(expected));
    assert_eq!(
        parse(b"{'descr': '<f4', 'fortran_order': False, 'shape': ()}")
            .unwrap()
            .shape,
        []
    );
}

#[test]
fn anything_else_is_no_header() {
    for text in [
        &b""[..],
        b"{",
        b"{}",
        b"{'descr': '<f4', 'fortran_order': False}",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}",
        b"{'descr': '<f4', 'fortran_order': 0, 'shape': ()}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        b"{'descr': '<f\xff', 'fortran_order': False, 'shape': (1,)}",
    ] {
        assert_eq!(parse(text), None, "{text:?}");
    }
}

#[test]
fn a_header_too_long_to_be_true_is_refused_before_it_is_read() {
    let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    let text = read_shape(&mut &bytes[..], INT64).unwrap_err();
    assert_eq!(text, "the NPY header is too long");
}
