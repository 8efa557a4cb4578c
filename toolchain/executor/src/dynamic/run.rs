//! The nodes of a graph in their order, and the tensors in between.

use std::cell::UnsafeCell;
use std::ffi::c_void;

use super::call::{room, table, Answer, Call, Failure};
use super::value::{elements, Tensor, Value};
use crate::graph::{self, Given, Text};

/// Stands for an input that is left out or an output that nobody reads.
pub const NO_SLOT: u32 = u32::MAX;

/// `count` entries of a table.
#[repr(C)]
pub struct List<T> {
    start: *const T,
    count: usize,
}

impl<T> List<T> {
    pub fn get(&self) -> &'static [T] {
        unsafe { table(self.start, self.count) }
    }
}

/// One node, as the tables have it.
#[repr(C)]
pub struct Node {
    /// Takes a `Call` and a `Failure`, which are Rust's own; not 0 where all is well, else the
    /// failure says why.
    operator: unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32,
    words: *const i32,
    inputs: List<u32>,
    outputs: List<u32>,
    /// Slots that nobody reads after it.
    freed: List<u32>,
    bodies: List<Body>,
    /// None (0) where the operator has no chain.
    chain: Option<Strip>,
    name: Text,
}

/// The kernel of a chain of element-wise operators (wasmgraph/dynamic/kernels/strips.py): takes its
/// table, and how many elements.
pub type Strip = unsafe extern "C" fn(*const c_void, usize) -> i32;

impl Node {
    pub fn words(&self) -> *const i32 {
        self.words
    }

    pub fn inputs(&self) -> &'static [u32] {
        self.inputs.get()
    }

    pub fn outputs(&self) -> &'static [u32] {
        self.outputs.get()
    }

    pub fn chain(&self) -> Option<Strip> {
        self.chain
    }

    pub fn bodies(&'static self) -> &'static [Body] {
        self.bodies.get()
    }
}

/// Nodes in order; a branch, the body of a loop, or the whole graph.
#[repr(C)]
pub struct Body {
    nodes: List<Node>,
    pub inputs: List<u32>,
    pub outputs: List<u32>,
}

impl Body {
    /// Runs the nodes in order, up to the first that fails.
    pub fn run(&'static self, slots: &mut Slots) -> Answer {
        for node in self.nodes.get() {
            let mut reason = Failure::new();
            let mut call = Call::new(node, slots);
            let (seen, told): (*mut Call, *mut Failure) = (&mut call, &mut reason);
            if unsafe { (node.operator)(seen.cast(), told.cast()) } == 0 {
                return Err([node.name.get(), ": ", &reason].concat());
            }
            for &slot in node.freed.get() {
                slots.clear(slot);
            }
        }
        Ok(())
    }
}

/// A constant, as the tables have it.
#[repr(C)]
struct Constant {
    slot: u32,
    item: usize,
    dims: List<i64>,
    start: *mut u8,
}

/// The graph, as the tables have it.
#[repr(C)]
struct Graph {
    slots: usize,
    constants: List<Constant>,
    body: Body,
}

#[cfg(target_os = "wasi")]
extern "C" {
    #[link_name = "wasmgraph_nodes"]
    static GRAPH: Graph;
}

/// What the slots hold by their number.
pub struct Slots(Vec<Option<Value>>);

impl Slots {
    pub fn get(&self, slot: u32) -> Option<&Value> {
        self.0[slot as usize].as_ref()
    }

    pub fn put(&mut self, slot: u32, value: Value) {
        self.0[slot as usize] = Some(value);
    }

    /// Takes a value out.
    pub fn clear(&mut self, slot: u32) -> Option<Value> {
        self.0[slot as usize].take()
    }
}

/// The inputs as declared by the host, and what the last run left.
struct State {
    inputs: Vec<Option<Tensor>>,
    outputs: Vec<Option<Value>>,
    /// Between runs only constants.
    slots: Slots,
}

struct Shared(UnsafeCell<State>);

// One thread calls the graph.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    inputs: Vec::new(),
    outputs: Vec::new(),
    slots: Slots(Vec::new()),
}));

fn state() -> &'static mut State {
    unsafe { &mut *STATE.0.get() }
}

/// Makes room for input `i`. Its bytes stay until it is declared again with another shape.
fn declare(i: usize, dims: &[i64]) -> Result<*mut u8, String> {
    let inputs = &mut state().inputs;
    inputs.resize_with(graph::inputs().len(), || None);
    let dims = dims.iter().map(|&d| usize::try_from(d).ok());
    let dims: Option<Vec<usize>> = dims.collect();
    let dims = dims.ok_or("it is larger than memory")?;
    if let Some(known) = inputs[i].as_ref().filter(|known| known.dims == dims) {
        return Ok(known.start());
    }
    inputs[i] = None;
    let item = graph::inputs()[i].dtype().nbytes;
    // Without its zeros too, as operators multiply some of the extents.
    let others: Vec<usize> = dims.iter().copied().filter(|&d| d > 0).collect();
    elements(&others)
        .and_then(|count| count.checked_mul(item))
        .filter(|&nbytes| nbytes <= i32::MAX as usize)
        .ok_or("it is larger than memory")?;
    let tensor = room(dims, item)?;
    let start = tensor.start();
    inputs[i] = Some(tensor);
    Ok(start)
}

#[cfg(target_os = "wasi")]
fn run() -> Result<(), String> {
    let nodes = unsafe { &GRAPH };
    let state = state();
    let slots = &mut state.slots;
    if slots.0.is_empty() {
        slots.0.resize_with(nodes.slots, || None);
        for constant in nodes.constants.get() {
            let dims = constant.dims.get().iter().map(|&d| d as usize).collect();
            let tensor = Tensor::constant(dims, constant.item, constant.start);
            slots.put(constant.slot, Value::Tensor(tensor));
        }
    }
    state.outputs.clear();
    for (&slot, tensor) in nodes.body.inputs.get().iter().zip(&state.inputs) {
        let tensor = tensor.clone().ok_or("an input was not given")?;
        slots.put(slot, Value::Tensor(tensor));
    }
    let done = nodes.body.run(slots);
    if done.is_ok() {
        let outputs = nodes.body.outputs.get().iter();
        (state.outputs).extend(outputs.map(|&slot| slots.get(slot).cloned()));
    }
    let is_constant =
        |value: &Value| matches!(value, Value::Tensor(tensor) if tensor.is_constant());
    for slot in &mut slots.0 {
        if !slot.as_ref().map_or(true, is_constant) {
            *slot = None;
        }
    }
    done
}

#[cfg(not(target_os = "wasi"))]
fn run() -> Result<(), String> {
    Ok(())
}

fn output(i: usize) -> Result<Given, String> {
    match state().outputs.get(i) {
        Some(Some(Value::Tensor(tensor))) => Ok(Given {
            start: tensor.start(),
            dims: tensor.dims.iter().map(|&d| d as i64).collect(),
        }),
        Some(Some(_)) => Err("the output is not a tensor".to_string()),
        _ => Err("there is no output before a run".to_string()),
    }
}

/// How the ABI's functions reach a dynamic graph.
#[no_mangle]
pub static wasmgraph_dynamic: graph::Engine = graph::Engine {
    declare,
    run,
    skip: || (),
    output,
};
