//! The text of the last error, which a host reads through `wg_error` and `wg_error_len`.

use std::cell::UnsafeCell;

struct Text(UnsafeCell<String>);

// A graph has one thread: WASI preview 1 modules without shared memory know no other.
unsafe impl Sync for Text {}

static TEXT: Text = Text(UnsafeCell::new(String::new()));

/// The text, borrowed for no longer than one expression.
fn text() -> &'static mut String {
    unsafe { &mut *TEXT.0.get() }
}

/// Replaces the text.
pub fn set(new: String) {
    *text() = new;
}

/// Forgets the last error; every call that succeeds does so.
pub fn clear() {
    text().clear();
}

#[no_mangle]
pub extern "C" fn wg_error() -> *const u8 {
    text().as_ptr()
}

#[no_mangle]
pub extern "C" fn wg_error_len() -> usize {
    text().len()
}
