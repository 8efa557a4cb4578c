//! What an operator sees of its node: parameters, inputs, room for outputs.

use std::ffi::c_void;
use std::slice::from_raw_parts;

use super::run::{Body, Node, Slots, Strip, NO_SLOT};
use super::value::{Dims, Tensor, Value};
use crate::operators::Words;

/// Why an operator cannot answer: a sentence for the user, in which the node is "it".
pub type Failure = String;
pub type Answer = Result<(), Failure>;

/// One call of an operator.
pub struct Call<'a> {
    node: &'static Node,
    /// The node's parameters, in the order in which its operator's documentation lists them.
    pub words: Words,
    slots: &'a mut Slots,
}

impl<'a> Call<'a> {
    pub fn new(node: &'static Node, slots: &'a mut Slots) -> Call<'a> {
        let words = unsafe { Words::new(node.words()) };
        Call { node, words, slots }
    }

    pub fn input_count(&self) -> usize {
        self.node.inputs().len()
    }

    /// Whether input `i` is given: optional inputs may be left out.
    pub fn has(&self, i: usize) -> bool {
        self.node.inputs().get(i).map_or(false, |&s| s != NO_SLOT)
    }

    /// Whether somebody reads output `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.node.outputs().get(i).map_or(false, |&s| s != NO_SLOT)
    }

    /// Input `i`, whatever it is.
    pub fn value(&self, i: usize) -> Result<Value, Failure> {
        let given = self.node.inputs().get(i).filter(|&&s| s != NO_SLOT);
        let slot = given.ok_or_else(|| ["its input ", &i.to_string(), " is missing"].concat())?;
        self.slots
            .get(*slot)
            .cloned()
            .ok_or_else(|| "it reads what nothing has computed".to_string())
    }

    /// Input `i`, a tensor. It shares its bytes: to clone it is cheap.
    pub fn tensor(&self, i: usize) -> Result<Tensor, Failure> {
        match self.value(i)? {
            Value::Tensor(tensor) => Ok(tensor),
            _ => Err(["its input ", &i.to_string(), " is not a tensor"].concat()),
        }
    }

    /// Input `i`, whole numbers of int32 or int64 as its element size says.
    pub fn numbers(&self, i: usize) -> Result<Vec<i64>, Failure> {
        let tensor = self.tensor(i)?;
        Ok(match tensor.item {
            8 => tensor.items::<i64>().to_vec(),
            _ => tensor.items::<i32>().iter().map(|&n| n.into()).collect(),
        })
    }

    /// Room for output `i`, to be given to `set` once it is written.
    pub fn room<T>(&self, dims: Dims) -> Result<Tensor, Failure> {
        room(dims, std::mem::size_of::<T>())
    }

    /// Output `i` is this.
    pub fn set(&mut self, i: usize, value: Value) {
        if let Some(&slot) = self.node.outputs().get(i).filter(|&&s| s != NO_SLOT) {
            self.slots.put(slot, value);
        }
    }

    /// Output `i` is this tensor.
    pub fn set_tensor(&mut self, i: usize, tensor: Tensor) {
        self.set(i, Value::Tensor(tensor));
    }

    /// Whether a chain of element-wise operators belongs to the node.
    pub fn has_chain(&self) -> bool {
        self.node.chain().is_some()
    }

    /// The node's chain.
    pub fn chain(&self) -> Result<Strip, Failure> {
        self.node
            .chain()
            .ok_or_else(|| "it has no chain".to_string())
    }

    /// The node's branches or loop body.
    pub fn body(&self, i: usize) -> &'static Body {
        &self.node.bodies()[i]
    }

    /// Runs a body; its results are in the slots that it names.
    pub fn run_body(&mut self, body: &'static Body) -> Answer {
        body.run(self.slots)
    }

    pub fn slots(&mut self) -> &mut Slots {
        self.slots
    }
}

/// Room for a tensor.
pub fn room(dims: Dims, item: usize) -> Result<Tensor, Failure> {
    Tensor::new(dims, item).ok_or_else(|| "it ran out of memory".to_string())
}

/// An axis as ONNX counts it, from the back if negative.
pub fn axis(given: i64, rank: usize) -> Result<usize, Failure> {
    let found = if given < 0 {
        given + rank as i64
    } else {
        given
    };
    match usize::try_from(found) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => Err(["there is no axis ", &given.to_string()].concat()),
    }
}

/// `count` words at an address of the module's data.
pub unsafe fn table<T>(start: *const T, count: usize) -> &'static [T] {
    match count {
        0 => &[],
        count => from_raw_parts(start, count),
    }
}

/// Runs an operator for the run loop, whose `Node` says what the pointers are.
pub unsafe fn answer(
    call: *mut c_void,
    reason: *mut c_void,
    operator: fn(&mut Call) -> Answer,
) -> i32 {
    match operator(&mut *call.cast::<Call>()) {
        Ok(()) => 1,
        Err(text) => {
            *reason.cast::<Failure>() = text;
            0
        }
    }
}
