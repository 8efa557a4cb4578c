//! Runs the steps of a graph, on one thread or on several.
//!
//! Steps come in stages: those of one stage may run at the same time, and a stage begins when the one
//! before it has ended. One thread runs them all in order. With the feature "threads" (a module with
//! shared memory) others may join in, each in an instance of its own over the same memory; see
//! `pool`.

use crate::graph::steps;

/// A kernel returned `code`, not 0.
pub struct Failure {
    pub step: usize,
    pub code: i32,
}

/// The code of a run that the host stopped, since one of its threads ended early.
pub const STOPPED: i32 = -2;

/// Runs every step, up to the first that fails.
///
/// # Safety
/// Every input was declared.
pub unsafe fn run() -> Result<(), Failure> {
    #[cfg(feature = "threads")]
    return crate::pool::run();
    #[cfg(not(feature = "threads"))]
    one_by_one()
}

#[cfg_attr(feature = "threads", allow(dead_code))]
unsafe fn one_by_one() -> Result<(), Failure> {
    for (number, step) in steps().iter().enumerate() {
        let code = step.run();
        if code != 0 {
            return Err(Failure { step: number, code });
        }
    }
    Ok(())
}
