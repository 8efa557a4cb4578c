//! The functions of a component: the canonical ABI of toolchain/wit/inference.wit by hand.
//!
//! A caller's tensors are copied once, into memory that it asks of `cabi_realloc`. Where a block is as
//! long as an input, it gets that input's own place, so that the bytes are where the graph reads them;
//! only what then turns out to be elsewhere is moved. Results are read from the outputs' places. They,
//! and the texts of errors, stay until the next run, so that there is nothing to do after a return.
//!
//! Layout: https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::{copy_nonoverlapping, eq, null};
use std::slice::from_raw_parts;

use crate::abi;
use crate::graph::{dtype_name, engine, inputs, outputs, Tensor};
use crate::workspace;

/// A string or a list.
#[repr(C)]
struct List<T> {
    start: *const T,
    count: usize,
}

impl<T> Clone for List<T> {
    fn clone(&self) -> List<T> {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> List<T> {
    fn of(items: &[T]) -> List<T> {
        List {
            start: items.as_ptr(),
            count: items.len(),
        }
    }

    /// # Safety
    /// The items live longer than the slice is used.
    unsafe fn get<'a>(self) -> &'a [T] {
        match self.count {
            0 => &[],
            count => from_raw_parts(self.start, count),
        }
    }
}

#[repr(C)]
struct NamedTensor {
    name: List<u8>,
    /// Its place in `DTYPES`.
    dtype: u8,
    shape: List<u32>,
    bytes: List<u8>,
}

/// `result<list<named-tensor>, error>`
#[repr(C)]
struct Answer {
    is_error: u8,
    content: Content,
}

#[repr(C)]
#[derive(Clone, Copy)]
union Content {
    tensors: List<NamedTensor>,
    error: Failed,
}

/// The variant `error`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Failed {
    kind: Kind,
    text: List<u8>,
}

/// The cases that a graph gives.
#[repr(u8)]
#[derive(Clone, Copy)]
enum Kind {
    Input = 1,
    Inference = 2,
    Memory = 3,
}

struct Failure {
    kind: Kind,
    text: String,
}

impl Failure {
    fn input(text: String) -> Failure {
        Failure::new(Kind::Input, text)
    }

    /// The graph's own words tell where memory is what it lacks.
    fn new(kind: Kind, text: String) -> Failure {
        let words = ["out of memory", "no memory left", "larger than memory"];
        let is_of_memory = words.iter().any(|&words| text.contains(words));
        let kind = if is_of_memory { Kind::Memory } else { kind };
        Failure { kind, text }
    }
}

/// Where an input's bytes go when it has this shape.
struct Place {
    start: *mut u8,
    nbytes: usize,
    shape: Vec<i64>,
    /// By a block of the call under way.
    is_taken: bool,
}

impl Place {
    const NOWHERE: Place = Place {
        start: std::ptr::null_mut(),
        nbytes: 0,
        shape: Vec::new(),
        is_taken: false,
    };

    /// Of an input whose shape is fixed: known before it is declared.
    fn of(input: &Tensor) -> Place {
        let shape = input.shape();
        if input.address.is_null() || shape.iter().any(|&extent| extent < 0) {
            return Place::NOWHERE;
        }
        let elements: i64 = shape.iter().product();
        Place {
            start: input.address,
            nbytes: elements as usize * input.dtype().nbytes,
            shape: shape.to_vec(),
            is_taken: false,
        }
    }
}

struct State {
    /// One per input.
    places: Vec<Place>,
    /// What else the caller of the call under way was given.
    blocks: Vec<*mut u8>,
    /// What the last run left for its caller to read.
    shapes: Vec<Vec<u32>>,
    tensors: Vec<NamedTensor>,
    text: String,
    answer: Answer,
}

struct Shared(UnsafeCell<State>);

// A component has one thread, and no function of it is entered while another runs.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    places: Vec::new(),
    blocks: Vec::new(),
    shapes: Vec::new(),
    tensors: Vec::new(),
    text: String::new(),
    answer: Answer {
        is_error: 0,
        content: Content {
            tensors: List {
                start: null(),
                count: 0,
            },
        },
    },
}));

fn state() -> &'static mut State {
    let state = unsafe { &mut *STATE.0.get() };
    if state.places.is_empty() {
        state.places = inputs().iter().map(Place::of).collect();
    }
    state
}

impl State {
    /// Memory for what a caller passes: an input's place where it may be an input's bytes.
    fn give(&mut self, alignment: usize, nbytes: usize) -> *mut u8 {
        let fits = |place: &&mut Place| place.nbytes == nbytes && !place.is_taken;
        if alignment == 1 && nbytes > 0 {
            if let Some(place) = self.places.iter_mut().find(fits) {
                place.is_taken = true;
                return place.start;
            }
        }
        let block = workspace::allocate(nbytes as u64);
        if block.is_null() {
            wasmgraph_out_of_memory();
        }
        self.blocks.push(block);
        block
    }

    fn take_back(&mut self, start: *mut u8) {
        match self.blocks.iter().position(|&block| block == start) {
            Some(i) => unsafe { workspace::release(self.blocks.swap_remove(i)) },
            None => {
                for place in self.places.iter_mut().filter(|p| p.start == start) {
                    place.is_taken = false;
                }
            }
        }
    }

    /// Runs the graph on a caller's tensors. An input that is declared again with the shape that it had
    /// stays where it is.
    unsafe fn run(&mut self, given: &[NamedTensor]) -> Result<(), Failure> {
        let given = by_input(given)?;
        let moved = self.move_away(&given)?;
        for place in &mut self.places {
            *place = Place::NOWHERE;
        }
        for (i, (tensor, bytes)) in given.iter().zip(moved).enumerate() {
            let shape: Vec<i64> = tensor.shape.get().iter().map(|&d| d.into()).collect();
            let start = abi::declare(i, shape.clone()).map_err(Failure::input)?;
            let nbytes = tensor.bytes.count;
            let source = bytes.as_ref().map_or(tensor.bytes.start, |b| b.as_ptr());
            if !eq(source, start) {
                copy_nonoverlapping(source, start, nbytes);
            }
            self.places[i] = Place {
                start,
                nbytes,
                shape,
                is_taken: false,
            };
        }
        abi::check_inputs().map_err(Failure::input)?;
        (engine().run)().map_err(|text| Failure::new(Kind::Inference, text))?;
        self.collect()
    }

    /// The bytes of every tensor that lies where another input belongs, or where its own input does in
    /// another shape: declaring inputs may free or overwrite them.
    unsafe fn move_away(&self, given: &[&NamedTensor]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let mut moved = Vec::new();
        for (place, tensor) in self.places.iter().zip(given) {
            let shape = tensor.shape.get();
            let start = tensor.bytes.start;
            let is_own = eq(place.start, start)
                && place.shape.len() == shape.len()
                && place
                    .shape
                    .iter()
                    .zip(shape)
                    .all(|(&a, &b)| a == i64::from(b));
            let is_block = self.blocks.iter().any(|&block| eq(block, start));
            moved.push((!is_own && !is_block).then(|| tensor.bytes.get().to_vec()));
        }
        Ok(moved)
    }

    /// Makes the list of outputs.
    fn collect(&mut self) -> Result<(), Failure> {
        for (i, output) in outputs().iter().enumerate() {
            let failed = |text| Failure::new(Kind::Inference, text);
            let given = (engine().output)(i).map_err(failed)?;
            let shape: Result<Vec<u32>, _> = given.dims.iter().map(|&d| u32::try_from(d)).collect();
            let shape = shape.map_err(|_| {
                let found = abi::describe("shape", &given.dims);
                failed(["output '", output.name(), "' has the ", &found].concat())
            })?;
            let elements: i64 = given.dims.iter().product();
            let nbytes = elements as usize * output.dtype().nbytes;
            self.shapes.push(shape);
            self.tensors.push(NamedTensor {
                name: List::of(output.name().as_bytes()),
                dtype: output.dtype_number() as u8,
                shape: List::of(&self.shapes[i]),
                bytes: List {
                    start: given.start,
                    count: nbytes,
                },
            });
        }
        Ok(())
    }
}

/// A caller's tensors in the order of the graph's inputs, each of which is there, once, with its dtype
/// and as many bytes as its shape says.
unsafe fn by_input(given: &[NamedTensor]) -> Result<Vec<&NamedTensor>, Failure> {
    let mut found: Vec<Option<&NamedTensor>> = vec![None; inputs().len()];
    for tensor in given {
        let name = tensor.name.get();
        let is_it = |input: &Tensor| input.name().as_bytes() == name;
        let i = inputs().iter().position(is_it).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let known: Vec<&str> = inputs().iter().map(Tensor::name).collect();
            let known = known.join("', '");
            Failure::input(["no input '", &name, "': there is '", &known, "'"].concat())
        })?;
        check(&inputs()[i], tensor)?;
        if found[i].replace(tensor).is_some() {
            let name = inputs()[i].name();
            return Err(Failure::input(
                ["input '", name, "' was given twice"].concat(),
            ));
        }
    }
    let mut ordered = Vec::new();
    for (input, tensor) in inputs().iter().zip(found) {
        ordered.push(tensor.ok_or_else(|| {
            Failure::input(["input '", input.name(), "' was not given"].concat())
        })?);
    }
    Ok(ordered)
}

unsafe fn check(input: &Tensor, tensor: &NamedTensor) -> Result<(), Failure> {
    let misfit = |expected: &str, found: &str| {
        let text = ["input '", input.name(), "' has ", expected, ", not ", found];
        Err(Failure::input(text.concat()))
    };
    if usize::from(tensor.dtype) != input.dtype_number() {
        return misfit(input.dtype().name, dtype_name(tensor.dtype));
    }
    let item = input.dtype().nbytes as u64;
    let mut extents = tensor.shape.get().iter().map(|&extent| u64::from(extent));
    let nbytes = extents.try_fold(item, u64::checked_mul);
    if nbytes != Some(tensor.bytes.count as u64) {
        let expected = nbytes.map_or("more than memory has".to_string(), |n| n.to_string());
        let expected = [&expected, " bytes in that shape"].concat();
        let found = tensor.bytes.count.to_string();
        return misfit(&expected, &found);
    }
    Ok(())
}

/// What callers take memory from.
///
/// # Safety
/// `old` came from here with `old_nbytes` and was not passed since, unless `old_nbytes` is 0.
#[no_mangle]
pub unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_nbytes: usize,
    alignment: usize,
    nbytes: usize,
) -> *mut u8 {
    let state = state();
    let new = state.give(alignment, nbytes);
    if old_nbytes > 0 {
        copy_nonoverlapping(old, new, old_nbytes.min(nbytes));
        state.take_back(old);
    }
    new
}

/// `describe`: the record that the link stage wrote (wasmgraph/link/metadata_object.py).
#[export_name = "wasmgraph:inference/model@0.1.0#describe"]
pub extern "C" fn describe() -> *const u8 {
    #[cfg(target_os = "wasi")]
    return unsafe { &wasmgraph_metadata };
    #[cfg(not(target_os = "wasi"))]
    null()
}

#[cfg(target_os = "wasi")]
extern "C" {
    static wasmgraph_metadata: u8;
}

/// `run`; a caller reads the answer before it calls anything else.
///
/// # Safety
/// The tensors, and all that they point to, are in memory from `cabi_realloc`.
#[export_name = "wasmgraph:inference/model@0.1.0#run"]
pub unsafe extern "C" fn run(start: *const u8, count: usize) -> *const u8 {
    let state = state();
    state.tensors.clear();
    state.shapes.clear();
    let start = start.cast();
    let content = match state.run(List { start, count }.get()) {
        Ok(()) => Ok(List::of(&state.tensors)),
        Err(failure) => {
            state.text = failure.text;
            // Whether all inputs were declared is not known: they are looked up anew.
            state.places.clear();
            Err(Failed {
                kind: failure.kind,
                text: List::of(state.text.as_bytes()),
            })
        }
    };
    for block in state.blocks.drain(..) {
        workspace::release(block);
    }
    for place in &mut state.places {
        place.is_taken = false;
    }
    state.answer = Answer {
        is_error: content.is_err().into(),
        content: match content {
            Ok(tensors) => Content { tensors },
            Err(error) => Content { error },
        },
    };
    (&state.answer as *const Answer).cast()
}

/// Traps; a host knows it by its name. A component has nobody to tell more to.
#[no_mangle]
#[inline(never)]
pub extern "C" fn wasmgraph_out_of_memory() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

/// The C library's memory; where there is none left, even for small things, the graph ends there.
struct OrOutOfMemory;

unsafe impl GlobalAlloc for OrOutOfMemory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        enough(System.alloc(layout))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        enough(System.alloc_zeroed(layout))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        System.dealloc(block, layout);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, nbytes: usize) -> *mut u8 {
        enough(System.realloc(block, layout, nbytes))
    }
}

fn enough(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        wasmgraph_out_of_memory();
    }
    block
}

#[global_allocator]
static ALLOCATOR: OrOutOfMemory = OrOutOfMemory;
