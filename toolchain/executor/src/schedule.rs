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

/// How often the steps run, and what is done before the first time, between two and after the last.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub count: usize,
    /// Gets how many rounds are over. Whichever thread ended the last step calls it, alone.
    pub turn: fn(usize),
}

/// Runs every step, as often as asked for, up to the first that fails.
///
/// # Errors
/// What the host is to be told of a kernel that failed.
pub fn run(rounds: Rounds) -> Result<(), String> {
    #[cfg(feature = "threads")]
    let ended = unsafe { crate::pool::run(rounds) };
    #[cfg(not(feature = "threads"))]
    let ended = unsafe { one_by_one(rounds) };
    ended.map_err(|failed| match failed.code {
        STOPPED => "the run was stopped".to_string(),
        code => explain(steps()[failed.step].nodes(), code),
    })
}

/// A run that ends before its first step.
pub fn skip() {
    #[cfg(feature = "threads")]
    crate::pool::skip();
}

/// On this thread alone.
///
/// # Safety
/// No other thread runs steps.
pub unsafe fn one_by_one(rounds: Rounds) -> Result<(), Failure> {
    for round in 0..rounds.count {
        (rounds.turn)(round);
        for (number, step) in steps().iter().enumerate() {
            let code = step.run();
            if code != 0 {
                return Err(Failure { step: number, code });
            }
        }
    }
    (rounds.turn)(rounds.count);
    Ok(())
}

/// The steps once, on what lies at the inputs' addresses.
pub const ONCE: Rounds = Rounds {
    count: 1,
    turn: |_| (),
};

/// How the ABI's functions reach a graph of steps, all of whose addresses are fixed.
#[no_mangle]
pub static wasmgraph_static: Engine = Engine {
    declare: |i, _| Ok(inputs()[i].address),
    run: || run(ONCE),
    skip,
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
