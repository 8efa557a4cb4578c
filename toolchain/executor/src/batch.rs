//! A graph for one sample of a batch, run once per sample.
//!
//! The kernels know one place for a sample of every input and output. A batch of one is written and
//! read there; the samples of a larger one are copied there and back, one after the other. Blocks for
//! whole batches are kept from run to run.

use std::cell::UnsafeCell;
use std::ptr::{copy_nonoverlapping, null_mut};

use crate::graph::{inputs, outputs, shares, Engine, Given, Share, Tensor, NO_AXIS};
use crate::schedule::{run as run_steps, skip, Rounds, ONCE};
use crate::workspace;

/// A block is kept as long as it is at most this many times as large as what is needed.
const SLACK: usize = 4;

/// Room for a whole batch of one tensor.
struct Block {
    start: *mut u8,
    nbytes: usize,
}

impl Block {
    const NONE: Block = Block {
        start: null_mut(),
        nbytes: 0,
    };

    /// Makes room for `nbytes` bytes; none gives the memory back.
    fn fit(&mut self, nbytes: usize) -> Result<(), String> {
        if nbytes > 0 && nbytes <= self.nbytes && self.nbytes / SLACK <= nbytes {
            return Ok(());
        }
        unsafe { workspace::release(self.start) };
        *self = Block::NONE;
        if nbytes == 0 {
            return Ok(());
        }
        let start = workspace::allocate(nbytes as u64);
        if start.is_null() {
            return Err(["no memory left for ", &nbytes.to_string(), " bytes"].concat());
        }
        *self = Block { start, nbytes };
        Ok(())
    }
}

/// A tensor and its samples.
struct Samples {
    tensor: &'static Tensor,
    share: &'static Share,
    block: Block,
    /// How many samples the tensor has now.
    count: usize,
}

impl Samples {
    fn new((tensor, share): (&'static Tensor, &'static Share)) -> Samples {
        Samples {
            tensor,
            share,
            block: Block::NONE,
            count: 1,
        }
    }

    /// Whether all samples have the whole tensor.
    fn is_shared(&self) -> bool {
        self.share.axis == NO_AXIS
    }

    /// How many runs of bytes one sample has, and the length of one.
    fn runs(&self) -> (usize, usize) {
        let product = |dims: &[i64]| dims.iter().product::<i64>() as usize;
        let (outer, inner) = self.tensor.shape().split_at(self.share.axis);
        let nbytes = self.share.extent * product(&inner[1..]) * self.tensor.dtype().nbytes;
        (product(outer), nbytes)
    }

    /// Makes room for so many samples.
    fn hold(&mut self, count: usize) -> Result<(), String> {
        let (runs, nbytes) = self.runs();
        let whole = (runs * nbytes).checked_mul(count);
        let whole = whole.ok_or("no memory left: it is larger than memory")?;
        self.count = count;
        self.block.fit(if count == 1 { 0 } else { whole })
    }

    fn start(&self) -> *mut u8 {
        match self.block.nbytes {
            0 => self.tensor.address,
            _ => self.block.start,
        }
    }

    fn dims(&self) -> Vec<i64> {
        let mut dims = self.tensor.shape().to_vec();
        if !self.is_shared() {
            dims[self.share.axis] = self.share.extent as i64 * self.count as i64;
        }
        dims
    }

    /// Calls with every part of sample `n`: where it lies in the batch, where the kernels have it,
    /// how many bytes it has.
    fn each_part(&self, n: usize, copy: unsafe fn(*mut u8, *mut u8, usize)) {
        if self.is_shared() || self.block.nbytes == 0 {
            return;
        }
        let (runs, nbytes) = self.runs();
        for i in 0..runs {
            let in_batch = self.block.start.wrapping_add((i * self.count + n) * nbytes);
            let in_place = self.tensor.address.wrapping_add(i * nbytes);
            unsafe { copy(in_batch, in_place, nbytes) };
        }
    }
}

struct State {
    inputs: Vec<Samples>,
    outputs: Vec<Samples>,
    has_run: bool,
}

struct Shared(UnsafeCell<State>);

// One thread calls the graph, and one at a time makes a turn.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    inputs: Vec::new(),
    outputs: Vec::new(),
    has_run: false,
}));

fn state() -> &'static mut State {
    let state = unsafe { &mut *STATE.0.get() };
    if state.inputs.is_empty() {
        let (of_inputs, of_outputs) = shares();
        state.inputs = inputs().iter().zip(of_inputs).map(Samples::new).collect();
        state.outputs = outputs().iter().zip(of_outputs).map(Samples::new).collect();
    }
    state
}

/// Makes room for input `i`. Its bytes stay until it is declared again for another batch.
fn declare(i: usize, dims: &[i64]) -> Result<*mut u8, String> {
    let input = &mut state().inputs[i];
    if !input.is_shared() {
        let count = usize::try_from(dims[input.share.axis]);
        input.hold(count.map_err(|_| "no memory left: it is larger than memory")?)?;
    }
    Ok(input.start())
}

fn run() -> Result<(), String> {
    let state = state();
    state.has_run = false;
    let batched = state.inputs.iter().find(|input| !input.is_shared());
    let count = batched.map_or(1, |input| input.count);
    for output in state.outputs.iter_mut().filter(|o| !o.is_shared()) {
        let held = output.hold(count);
        held.map_err(|reason| {
            skip();
            ["output '", output.tensor.name(), "': ", &reason].concat()
        })?;
    }
    match count {
        // Outputs that all samples share are there without any; they take what input is left.
        0 | 1 => run_steps(ONCE)?,
        count => run_steps(Rounds { count, turn })?,
    }
    state.has_run = true;
    Ok(())
}

/// Takes the last sample's outputs away and brings the next one's inputs.
fn turn(done: usize) {
    let state = state();
    if done > 0 {
        for output in &state.outputs {
            output.each_part(done - 1, |in_batch, in_place, nbytes| unsafe {
                copy_nonoverlapping(in_place, in_batch, nbytes)
            });
        }
    }
    for input in state.inputs.iter().filter(|input| done < input.count) {
        input.each_part(done, |in_batch, in_place, nbytes| unsafe {
            copy_nonoverlapping(in_batch, in_place, nbytes)
        });
    }
}

fn output(i: usize) -> Result<Given, String> {
    let state = state();
    if !state.has_run {
        return Err("there is no output before a run".to_string());
    }
    Ok(Given {
        start: state.outputs[i].start(),
        dims: state.outputs[i].dims(),
    })
}

/// How the ABI's functions reach a graph for one sample of a batch.
#[no_mangle]
pub static wasmgraph_batch: Engine = Engine {
    declare,
    run,
    skip,
    output,
};
