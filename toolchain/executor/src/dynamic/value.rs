//! What a slot holds.

use std::rc::Rc;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use crate::workspace;

/// Extents, outermost first.
pub type Dims = Vec<usize>;

/// Bytes behind the last element that may be read: so kernels can read whole vectors.
const SLACK: u64 = 64;

/// How many elements a tensor of these extents has; None where that is more than memory has bytes.
pub fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Bytes that go when the last tensor that uses them goes. Constants lie in the module's data.
struct Block {
    start: *mut u8,
    is_owned: bool,
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.is_owned {
            unsafe { workspace::release(self.start) }
        }
    }
}

/// A tensor: dense in C order, little-endian, at a multiple of 64 bytes.
#[derive(Clone)]
pub struct Tensor {
    pub dims: Dims,
    block: Rc<Block>,
    /// Bytes per element.
    pub item: usize,
}

impl Tensor {
    /// Room for a tensor, its bytes unset. None where there is no memory left.
    pub fn new(dims: Dims, item: usize) -> Option<Tensor> {
        let nbytes = elements(&dims)?.checked_mul(item)?;
        let start = workspace::allocate(nbytes as u64 + SLACK);
        let block = Rc::new(Block {
            start,
            is_owned: true,
        });
        (!start.is_null()).then_some(Tensor { dims, block, item })
    }

    /// A tensor whose bytes lie in the module's data.
    pub fn constant(dims: Dims, item: usize, start: *mut u8) -> Tensor {
        let block = Rc::new(Block {
            start,
            is_owned: false,
        });
        Tensor { dims, block, item }
    }

    /// Whether its bytes lie in the module's data.
    pub fn is_constant(&self) -> bool {
        !self.block.is_owned
    }

    /// The same bytes under another shape of as many elements.
    pub fn reshaped(&self, dims: Dims) -> Tensor {
        Tensor {
            dims,
            ..self.clone()
        }
    }

    pub fn count(&self) -> usize {
        elements(&self.dims).unwrap_or(0)
    }

    pub fn start(&self) -> *mut u8 {
        self.block.start
    }

    /// The elements; the dtype is the compiler's word.
    pub fn items<T>(&self) -> &[T] {
        unsafe { from_raw_parts(self.block.start.cast(), self.count()) }
    }

    /// The elements, to be written by the operator that made the tensor.
    pub fn items_mut<T>(&mut self) -> &mut [T] {
        unsafe { from_raw_parts_mut(self.block.start.cast(), self.count()) }
    }
}

/// What a slot holds.
#[derive(Clone)]
pub enum Value {
    Tensor(Tensor),
    /// ONNX's sequence of tensors.
    Sequence(Vec<Tensor>),
    /// ONNX's empty optional.
    Nothing,
}
