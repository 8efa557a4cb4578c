//! The functions a host calls: version 1 of the graph ABI.

use std::cell::UnsafeCell;
use std::ptr::null_mut;

use crate::graph::{axes, engine, inputs, outputs, steps, Tensor};
use crate::{error, workspace};

/// The shape in which the host has declared each input, if it has.
struct Declared(UnsafeCell<Vec<Option<Vec<i64>>>>);

// One thread; see `error`.
unsafe impl Sync for Declared {}

static DECLARED: Declared = Declared(UnsafeCell::new(Vec::new()));

fn declared() -> &'static mut Vec<Option<Vec<i64>>> {
    let declared = unsafe { &mut *DECLARED.0.get() };
    declared.resize_with(inputs().len(), || None);
    declared
}

/// Declares that input `i` has this shape, and returns where its bytes go.
///
/// # Errors
/// The input has another rank or other extents, an extent beyond the bound of its axis, or there is no
/// memory left for it.
pub fn declare(i: usize, shape: Vec<i64>) -> Result<*mut u8, String> {
    let input = &inputs()[i];
    let known = input.shape();
    let fits = |(&known, &given): (&i64, &i64)| given >= 0 && (given == known || known < 0);
    if shape.len() != known.len() || !known.iter().zip(&shape).all(fits) {
        let expected = describe("shape", known);
        // What a host gives are numbers, also below 0.
        let found: Vec<String> = shape.iter().map(i64::to_string).collect();
        let found = ["shape [", &found.join(", "), "]"].concat();
        return Err(misfit(input, &expected, &found));
    }
    check_bounds(input, &shape)?;
    let address = (engine().declare)(i, &shape)
        .map_err(|reason| ["input '", input.name(), "': ", &reason].concat())?;
    declared()[i] = Some(shape);
    Ok(address)
}

fn check_bounds(input: &Tensor, shape: &[i64]) -> Result<(), String> {
    for (&known, &extent) in input.shape().iter().zip(shape) {
        let axis = match usize::try_from(-1 - known) {
            Ok(axis) => &axes()[axis],
            Err(_) => continue,
        };
        if let Some(most) = axis.most().filter(|&most| extent > most) {
            let (most, found) = (most.to_string(), extent.to_string());
            let parts = [
                "axis '",
                axis.name(),
                "' is at most ",
                &most,
                ", not ",
                &found,
            ];
            return Err([&parts.concat(), " (input '", input.name(), "')"].concat());
        }
    }
    Ok(())
}

fn misfit(input: &Tensor, expected: &str, found: &str) -> String {
    ["input '", input.name(), "' has ", expected, ", not ", found].concat()
}

/// Runs the graph on what the inputs hold.
///
/// # Errors
/// An input was never declared, two give one axis different extents, or a kernel failed.
pub fn run() -> Result<(), String> {
    check_inputs().map_err(|text| {
        (engine().skip)();
        text
    })?;
    (engine().run)()
}

/// Checks that every input was declared, and that no two give one axis different extents.
///
/// # Errors
/// One was not, or two do.
pub fn check_inputs() -> Result<(), String> {
    // Who gave each named axis its extent, and which.
    let mut given: Vec<Option<(&Tensor, i64)>> = vec![None; axes().len()];
    for (input, shape) in inputs().iter().zip(declared()) {
        let shape = shape
            .as_ref()
            .ok_or_else(|| ["input '", input.name(), "' was not given"].concat())?;
        for (&known, &extent) in input.shape().iter().zip(shape) {
            if known >= 0 {
                continue;
            }
            let axis = (-1 - known) as usize;
            match given[axis] {
                Some((other, first)) if first != extent => {
                    return Err(contradiction(axis, other, first, input, extent));
                }
                _ => given[axis] = Some((input, extent)),
            }
        }
    }
    Ok(())
}

fn contradiction(axis: usize, a: &Tensor, first: i64, b: &Tensor, second: i64) -> String {
    let (first, second) = (first.to_string(), second.to_string());
    let name = axes()[axis].name();
    [
        "axis '",
        name,
        "' is ",
        &first,
        " in input '",
        a.name(),
        "' and ",
        &second,
        " in input '",
        b.name(),
        "'",
    ]
    .concat()
}

/// "float32 [N, 3, 224, 224]"
pub fn describe(dtype: &str, shape: &[i64]) -> String {
    let extent = |&extent: &i64| match usize::try_from(-1 - extent) {
        Ok(axis) if axis < axes().len() => axes()[axis].name().to_string(),
        _ => extent.to_string(),
    };
    let extents: Vec<String> = shape.iter().map(extent).collect();
    [dtype, " [", &extents.join(", "), "]"].concat()
}

fn tensor(list: &'static [Tensor], i: u32, kind: &str) -> Result<&'static Tensor, String> {
    list.get(i as usize).ok_or_else(|| {
        let (i, n) = (i.to_string(), list.len().to_string());
        ["no ", kind, " ", &i, ": the graph has ", &n].concat()
    })
}

/// Checks that `count` numbers at an address that the host gives are within memory.
fn check_place(numbers: *const i64, count: usize) -> Result<(), String> {
    #[cfg(target_arch = "wasm32")]
    let end = core::arch::wasm32::memory_size(0) as u64 * 65536;
    #[cfg(not(target_arch = "wasm32"))]
    let end = u64::MAX;
    if numbers as u64 + 8 * count as u64 > end {
        let place = (numbers as usize).to_string();
        let count = count.to_string();
        return Err([
            "there are no ",
            &count,
            " numbers at ",
            &place,
            " in memory",
        ]
        .concat());
    }
    Ok(())
}

/// Keeps an error's text for the host; a success clears the last one.
fn answer<T>(result: Result<T, String>, failed: T) -> T {
    match result {
        Ok(value) => {
            error::clear();
            value
        }
        Err(text) => {
            error::set(text);
            failed
        }
    }
}

#[no_mangle]
pub extern "C" fn wg_abi() -> i32 {
    1
}

/// Declares input `i`'s shape, `rank` numbers at `dims` (rank -1: the static shape), and returns the
/// address to write its bytes to, or null on error.
///
/// # Safety
/// `dims` points to `rank` numbers. It is not read where `rank` is not the input's, nor where it points
/// outside of memory.
#[no_mangle]
pub unsafe extern "C" fn wg_input(i: u32, dims: *const i64, rank: i32) -> *mut u8 {
    let address = tensor(inputs(), i, "input").and_then(|input| {
        let known = input.shape();
        if rank == -1 && known.iter().all(|&extent| extent >= 0) {
            return declare(i as usize, known.to_vec());
        }
        if usize::try_from(rank) != Ok(known.len()) {
            let found = ["rank ", &rank.to_string()].concat();
            return Err(misfit(input, &describe("shape", known), &found));
        }
        check_place(dims, known.len())?;
        // A host's own array of numbers need not be aligned.
        let shape = (0..known.len()).map(|k| dims.add(k).read_unaligned());
        declare(i as usize, shape.collect())
    });
    answer(address, null_mut())
}

/// Runs the graph; 0 is success, 1 an error that `wg_error` tells.
#[no_mangle]
pub extern "C" fn wg_run() -> i32 {
    answer(run().map(|()| 0), 1)
}

/// Runs step `i` alone, `times` times, on whatever its buffers hold: how long a step takes is all
/// that this tells. 0 is success, the kernel's code or -3 (there is no such step) anything else.
#[no_mangle]
pub extern "C" fn wg_step(i: u32, times: u32) -> i32 {
    let step = match steps().get(i as usize) {
        Some(step) => step,
        None => return -3,
    };
    for _ in 0..times {
        let code = unsafe { step.run() };
        if code != 0 {
            return code;
        }
    }
    0
}

/// The address of output `i`'s bytes, valid after a run and until the next; null on error. It may be
/// that of an input or a constant.
#[no_mangle]
pub extern "C" fn wg_output(i: u32) -> *mut u8 {
    let given = tensor(outputs(), i, "output").and_then(|_| (engine().output)(i as usize));
    answer(given.map(|given| given.start), null_mut())
}

/// Writes output `i`'s shape to `dims` (unless that is null) and returns its rank, or -1 on error.
///
/// # Safety
/// `dims` is null or has room for as many numbers as the output has axes. Nothing is written where it
/// points outside of memory.
#[no_mangle]
pub unsafe extern "C" fn wg_output_shape(i: u32, dims: *mut i64) -> i32 {
    let given = tensor(outputs(), i, "output").and_then(|_| (engine().output)(i as usize));
    let rank = given.and_then(|given| {
        if !dims.is_null() {
            check_place(dims, given.dims.len())?;
            for (k, &extent) in given.dims.iter().enumerate() {
                dims.add(k).write_unaligned(extent);
            }
        }
        Ok(given.dims.len() as i32)
    });
    answer(rank, -1)
}

/// Scratch memory for the host, 64-byte aligned; null when there is none left.
#[no_mangle]
pub extern "C" fn wg_alloc(nbytes: usize) -> *mut u8 {
    let block = workspace::allocate(nbytes as u64);
    let text = || ["no memory left for ", &nbytes.to_string(), " bytes"].concat();
    answer(
        if block.is_null() {
            Err(text())
        } else {
            Ok(block)
        },
        null_mut(),
    )
}

/// Gives scratch memory back.
///
/// # Safety
/// `block` is null or came from `wg_alloc(nbytes)` and was not freed yet.
#[no_mangle]
pub unsafe extern "C" fn wg_free(block: *mut u8, _nbytes: usize) {
    workspace::release(block);
}
