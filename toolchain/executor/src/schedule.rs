//! Runs the steps of a graph, on one thread or on several.
//!
//! Steps come in stages: those of one stage may run at the same time, and a stage begins when the one
//! before it has ended. One thread runs them all in order. With the feature "threads" (a module with
//! shared memory) others may join in, each in an instance of its own over the same memory; see
//! `pool`.

use crate::graph::{inputs, outputs, steps, Engine, Given};

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

/// How the ABI's functions reach a graph of steps, all of whose addresses are fixed.
#[no_mangle]
pub static wasmgraph_static: Engine = Engine {
    declare: |i, _| Ok(inputs()[i].address),
    run: || {
        unsafe { run() }.map_err(|failed| match failed.code {
            STOPPED => "the run was stopped".to_string(),
            code => explain(steps()[failed.step].nodes(), code),
        })
    },
    skip: || {
        #[cfg(feature = "threads")]
        crate::pool::skip();
    },
    output: |i| {
        let output = &outputs()[i];
        Ok(Given {
            start: output.address,
            dims: output.shape().to_vec(),
        })
    },
};

/// What to tell of a kernel that returned `code`, not 0.
fn explain(nodes: &str, code: i32) -> String {
    let reason = match code {
        -1 => "ran out of memory".to_string(),
        code => ["failed with code ", &code.to_string()].concat(),
    };
    ["the kernel of ", nodes, " ", &reason].concat()
}
