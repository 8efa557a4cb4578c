//! The functions a host calls: version 1 of the graph ABI.
//!
//! Every shape is static today. Hosts already pass an input's shape and ask for an output's, so graphs
//! with symbolic axes can come without a new version.

use std::ptr::null_mut;

use crate::graph::{inputs, outputs, steps, Tensor};
use crate::schedule::{self, STOPPED};
use crate::{error, workspace};

/// Runs the graph on what the inputs hold.
///
/// # Errors
/// An input was never declared, or a kernel failed.
pub fn run() -> Result<(), String> {
    if let Some(input) = inputs().iter().find(|input| !input.is_declared()) {
        #[cfg(feature = "threads")]
        crate::pool::skip();
        return Err(["input '", input.name(), "' was not given"].concat());
    }
    unsafe { schedule::run() }.map_err(|failed| match failed.code {
        STOPPED => "the run was stopped".to_string(),
        code => failure(steps()[failed.step].nodes(), code),
    })
}

/// What to tell of a kernel that returned `code`, not 0.
fn failure(nodes: &str, code: i32) -> String {
    let reason = match code {
        -1 => "ran out of memory".to_string(),
        code => ["failed with code ", &code.to_string()].concat(),
    };
    ["the kernel of ", nodes, " ", &reason].concat()
}

/// "float32 [1, 3, 224, 224]"
pub fn describe(dtype: &str, shape: &[i64]) -> String {
    let extents: Vec<String> = shape.iter().map(i64::to_string).collect();
    [dtype, " [", &extents.join(", "), "]"].concat()
}

fn tensor(list: &'static [Tensor], i: u32, kind: &str) -> Result<&'static Tensor, String> {
    list.get(i as usize).ok_or_else(|| {
        let (i, n) = (i.to_string(), list.len().to_string());
        ["no ", kind, " ", &i, ": the graph has ", &n].concat()
    })
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
/// `dims` points to `rank` numbers; it is not read where `rank` is not the input's.
#[no_mangle]
pub unsafe extern "C" fn wg_input(i: u32, dims: *const i64, rank: i32) -> *mut u8 {
    let input = match tensor(inputs(), i, "input") {
        Ok(input) => input,
        Err(text) => return answer(Err(text), null_mut()),
    };
    let known = input.shape();
    let same_rank = usize::try_from(rank) == Ok(known.len());
    // A host's own array of numbers need not be aligned.
    if rank == -1 || same_rank && (0..known.len()).all(|k| dims.add(k).read_unaligned() == known[k])
    {
        input.declare();
        return answer(Ok(input.address), null_mut());
    }
    let found = if same_rank {
        let given: Vec<i64> = (0..known.len())
            .map(|k| dims.add(k).read_unaligned())
            .collect();
        describe("shape", &given)
    } else {
        ["rank ", &rank.to_string()].concat()
    };
    let expected = describe("shape", known);
    let text = [
        "input '",
        input.name(),
        "' has ",
        &expected,
        ", not ",
        &found,
    ];
    answer(Err(text.concat()), null_mut())
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

/// The address of output `i`'s bytes, valid after a run and until the next; null on error. It never
/// changes, and may be that of an input or a constant.
#[no_mangle]
pub extern "C" fn wg_output(i: u32) -> *mut u8 {
    let address = tensor(outputs(), i, "output").map(|output| output.address);
    answer(address, null_mut())
}

/// Writes output `i`'s shape to `dims` (unless that is null) and returns its rank, or -1 on error.
///
/// # Safety
/// `dims` is null or has room for as many numbers as the output has axes.
#[no_mangle]
pub unsafe extern "C" fn wg_output_shape(i: u32, dims: *mut i64) -> i32 {
    let rank = tensor(outputs(), i, "output").map(|output| {
        for (k, &extent) in output.shape().iter().enumerate() {
            if !dims.is_null() {
                dims.add(k).write_unaligned(extent);
            }
        }
        output.shape().len() as i32
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
