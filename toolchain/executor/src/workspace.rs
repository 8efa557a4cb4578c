//! The C functions which TVM's generated code calls: scratch memory and (one-threaded) parallel loops.
//!
//! Their signatures are those of tvm/runtime/c_backend_api.h and tvm/ffi/extra/c_env_api.h. Memory is
//! the C library's, since the call which frees a block is not told its size.

use std::ffi::c_void;
use std::ptr::null_mut;

/// Bytes; wasmgraph.bundle.ALIGNMENT.
const ALIGNMENT: usize = 64;

extern "C" {
    fn aligned_alloc(alignment: usize, size: usize) -> *mut u8;
    fn free(block: *mut u8);
}

/// A block of at least `nbytes` bytes, or null when there is no memory left.
pub fn allocate(nbytes: u64) -> *mut u8 {
    // The size of an aligned_alloc is a multiple of the alignment; a block of none would be null.
    let rounded = (nbytes.max(1))
        .checked_add(ALIGNMENT as u64 - 1)
        .map(|n| n & !(ALIGNMENT as u64 - 1));
    match rounded.map(usize::try_from) {
        // Pointer differences must fit an isize.
        Some(Ok(size)) if size <= isize::MAX as usize => unsafe { aligned_alloc(ALIGNMENT, size) },
        _ => null_mut(),
    }
}

/// Gives a block back.
///
/// # Safety
/// `block` is null or came from `allocate` and was not released yet.
pub unsafe fn release(block: *mut u8) {
    free(block);
}

#[no_mangle]
pub extern "C" fn TVMBackendAllocWorkspace(
    _device_type: i32,
    _device_id: i32,
    nbytes: u64,
    _dtype_code_hint: i32,
    _dtype_bits_hint: i32,
) -> *mut u8 {
    allocate(nbytes)
}

/// # Safety
/// `block` came from `TVMBackendAllocWorkspace` and was not freed yet.
#[no_mangle]
pub unsafe extern "C" fn TVMBackendFreeWorkspace(
    _device_type: i32,
    _device_id: i32,
    block: *mut u8,
) -> i32 {
    release(block);
    0
}

/// What a task of a parallel loop learns about its group.
#[repr(C)]
pub struct TVMParallelGroupEnv {
    sync_handle: *mut c_void,
    num_task: i32,
}

type Task = unsafe extern "C" fn(i32, *mut TVMParallelGroupEnv, *mut c_void) -> i32;

/// Runs the tasks one after the other; 0 tasks means as many as there are threads, which is one.
///
/// # Safety
/// `task` and `data` belong together, as the kernel passes them.
#[no_mangle]
pub unsafe extern "C" fn TVMBackendParallelLaunch(
    task: Task,
    data: *mut c_void,
    num_task: i32,
) -> i32 {
    let mut group = TVMParallelGroupEnv {
        sync_handle: null_mut(),
        num_task: num_task.max(1),
    };
    for id in 0..group.num_task {
        let code = task(id, &mut group, data);
        if code != 0 {
            return code;
        }
    }
    0
}

/// TVM's objects announce their symbols to its runtime, which is not here: nothing to do.
#[no_mangle]
pub extern "C" fn TVMFFIEnvModRegisterSystemLibSymbol(
    _name: *const u8,
    _symbol: *mut c_void,
) -> i32 {
    0
}
