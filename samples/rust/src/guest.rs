//! The functions that a graph exports, called within limits. Nothing that it says is believed: every
//! pointer, length and text is checked against its memory before it is touched.

use std::thread;
use std::time::Duration;

use wasmtime::{
    Instance, Linker, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, Trap, WasmParams,
    WasmResults,
};

use crate::error::{Error, Kind, Result};
use crate::metadata::MAX_RANK;

const ABI: u32 = 1;
/// As the rank in `wg_input`: the shape is the one compiled in.
const STATIC_SHAPE: u32 = u32::MAX;
const SHAPE_NBYTES: usize = 8 * MAX_RANK;
const MAX_ERROR_NBYTES: usize = 65536;
const MAX_TABLE_ELEMENTS: usize = 1_000_000;
/// Of epochs: not within the life of this process.
const NEVER: u64 = 1 << 62;

/// What a graph may use.
pub struct Limits {
    /// Bytes of memory.
    pub memory: usize,
    /// Wall time from its start on, if that is limited.
    pub time: Option<Duration>,
}

/// What belongs to a guest on this side.
pub struct Host {
    limits: StoreLimits,
    /// The end of what it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// An instance of a graph.
pub struct Guest {
    store: Store<Host>,
    instance: Instance,
    memory: Memory,
    limits: Limits,
}

impl Guest {
    /// Instantiates a module.
    pub fn start(linker: &Linker<Host>, module: &Module, limits: Limits) -> Result<Self> {
        let bounds = StoreLimitsBuilder::new()
            .memory_size(limits.memory)
            .table_elements(MAX_TABLE_ELEMENTS)
            .build();
        let host = Host {
            limits: bounds,
            stderr: vec![],
        };
        let mut store = Store::new(module.engine(), host);
        store.limiter(|host| &mut host.limits);
        match limits.time {
            Some(time) => {
                store.set_epoch_deadline(1);
                let engine = module.engine().clone();
                thread::spawn(move || {
                    thread::sleep(time);
                    engine.increment_epoch();
                });
            }
            None => store.set_epoch_deadline(NEVER),
        }
        let instance = linker
            .instantiate(&mut store, module)
            .map_err(|e| explain(&e, &store, &limits, Kind::Load))?;
        let memory = instance.get_memory(&mut store, "memory");
        let memory = memory.ok_or_else(|| Error::new(Kind::Load, "the graph has no memory"))?;
        let mut guest = Self {
            store,
            instance,
            memory,
            limits,
        };
        guest.check_exports()?;
        guest.initialize()?;
        Ok(guest)
    }

    /// Finds whether all functions of the ABI are there, with its types.
    fn check_exports(&mut self) -> Result<()> {
        if self.instance.get_func(&mut self.store, "_start").is_none() {
            return Err(Error::new(Kind::Load, "the graph has no '_start'"));
        }
        self.check::<(), u32>("wg_abi")?;
        self.check::<(u32, u32, u32), u32>("wg_input")?;
        self.check::<(), i32>("wg_run")?;
        self.check::<u32, u32>("wg_output")?;
        self.check::<(u32, u32), u32>("wg_output_shape")?;
        self.check::<u32, u32>("wg_alloc")?;
        self.check::<(u32, u32), ()>("wg_free")?;
        self.check::<(), u32>("wg_error")?;
        self.check::<(), u32>("wg_error_len")
    }

    fn check<P: WasmParams, R: WasmResults>(&mut self, name: &str) -> Result<()> {
        let found = self.instance.get_typed_func::<P, R>(&mut self.store, name);
        found.map_err(|e| Error::new(Kind::Load, format!("the graph's '{name}': {e:#}")))?;
        Ok(())
    }

    fn initialize(&mut self) -> Result<()> {
        if self
            .instance
            .get_func(&mut self.store, "_initialize")
            .is_some()
        {
            self.call_as::<(), ()>("_initialize", (), Kind::Load)?;
        }
        let abi: u32 = self.call_as("wg_abi", (), Kind::Load)?;
        if abi != ABI {
            return Err(Error::new(
                Kind::Load,
                format!("the graph has ABI {abi}, not {ABI}"),
            ));
        }
        Ok(())
    }

    /// Declares the shape of an input (None: the one compiled in); where its bytes go.
    pub fn declare(&mut self, i: usize, name: &str, shape: Option<&[u64]>) -> Result<u32> {
        let (place, rank) = match shape {
            None => (0, STATIC_SHAPE),
            Some(shape) => {
                let place = self.room_for_a_shape()?;
                let dims: Vec<u8> = shape
                    .iter()
                    .flat_map(|extent| extent.to_le_bytes())
                    .collect();
                self.write(place, &dims, name)?;
                (place, shape.len() as u32)
            }
        };
        match self.call("wg_input", (i as u32, place, rank))? {
            0 => Err(self.report(&format!("the graph rejects input '{name}'"))),
            address => Ok(address),
        }
    }

    /// Runs the graph on what its inputs hold.
    pub fn run(&mut self) -> Result<()> {
        match self.call::<(), i32>("wg_run", ())? {
            0 => Ok(()),
            code => Err(self.report(&format!("the graph failed with code {code}"))),
        }
    }

    /// Where the bytes of an output lie after a run.
    pub fn output(&mut self, i: usize, name: &str) -> Result<u32> {
        match self.call("wg_output", i as u32)? {
            0 => Err(self.report(&format!("the graph has no output '{name}'"))),
            address => Ok(address),
        }
    }

    /// The shape of an output after a run: at most as many axes as a tensor can have.
    pub fn output_shape(&mut self, i: usize, name: &str) -> Result<Vec<u64>> {
        let rank: u32 = self.call("wg_output_shape", (i as u32, 0))?;
        if rank as usize > MAX_RANK {
            return Err(self.report(&format!("the graph gives output '{name}' no shape")));
        }
        let place = self.room_for_a_shape()?;
        self.call::<_, u32>("wg_output_shape", (i as u32, place))?;
        let dims = self.read(place, 8 * rank as usize, name)?;
        let extent = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |n, &byte| n << 8 | u64::from(byte))
        };
        Ok(dims.chunks(8).map(extent).collect())
    }

    /// Copies bytes into the guest's memory.
    pub fn write(&mut self, address: u32, data: &[u8], name: &str) -> Result<()> {
        let written = self.memory.write(&mut self.store, address as usize, data);
        written.map_err(|_| self.outside(address, data.len(), name))
    }

    /// A copy of bytes in the guest's memory.
    pub fn read(&self, address: u32, nbytes: usize, name: &str) -> Result<Vec<u8>> {
        let memory = self.memory.data(&self.store);
        let found = memory
            .get(address as usize..)
            .and_then(|rest| rest.get(..nbytes));
        Ok(found
            .ok_or_else(|| self.outside(address, nbytes, name))?
            .to_vec())
    }

    fn outside(&self, address: u32, nbytes: usize, name: &str) -> Error {
        let size = self.memory.data_size(&self.store);
        let place = format!("{nbytes} bytes of '{name}' at {address:#x}");
        let text = format!("the graph wants {place}, outside its memory of {size} bytes");
        Error::new(Kind::Inference, text)
    }

    fn room_for_a_shape(&mut self) -> Result<u32> {
        let place: u32 = self.call("wg_alloc", SHAPE_NBYTES as u32)?;
        if place == 0 || place as usize + SHAPE_NBYTES > self.memory.data_size(&self.store) {
            return Err(self.report("the graph has no memory left for a shape"));
        }
        Ok(place)
    }

    fn call<P: WasmParams, R: WasmResults>(&mut self, name: &str, parameters: P) -> Result<R> {
        self.call_as(name, parameters, Kind::Inference)
    }

    fn call_as<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        parameters: P,
        kind: Kind,
    ) -> Result<R> {
        self.instance
            .get_typed_func::<P, R>(&mut self.store, name)
            .and_then(|function| function.call(&mut self.store, parameters))
            .map_err(|e| explain(&e, &self.store, &self.limits, kind))
    }

    /// What the guest says of its own failure.
    fn report(&mut self, what: &str) -> Error {
        match self.error_text() {
            Ok(text) if speaks_of_memory(&text) => {
                let limit = self.limits.memory;
                Error::new(
                    Kind::Memory,
                    format!("{what}: {text}; the limit is {limit} bytes"),
                )
            }
            Ok(text) => Error::new(Kind::Inference, format!("{what}: {text}")),
            Err(error) => error,
        }
    }

    fn error_text(&mut self) -> Result<String> {
        let address: u32 = self.call("wg_error", ())?;
        let length: u32 = self.call("wg_error_len", ())?;
        let size = self.memory.data_size(&self.store);
        if address as usize + length as usize > size {
            return Err(self.outside(address, length as usize, "its error text"));
        }
        let text = self.read(
            address,
            MAX_ERROR_NBYTES.min(length as usize),
            "its error text",
        )?;
        Ok(String::from_utf8_lossy(&text).trim().to_string())
    }
}

/// Why the engine stopped the guest.
fn explain(error: &wasmtime::Error, store: &Store<Host>, limits: &Limits, kind: Kind) -> Error {
    let said = String::from_utf8_lossy(&store.data().stderr)
        .trim()
        .to_string();
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            let time = limits.time.unwrap_or_default();
            Error::new(
                Kind::Timeout,
                format!("the graph was stopped after {time:?}"),
            )
        }
        _ if speaks_of_memory(&said) => {
            let limit = limits.memory;
            Error::new(Kind::Memory, format!("{said}; the limit is {limit} bytes"))
        }
        Some(trap) => Error::new(
            kind,
            format!("the graph trapped: {trap}\n{said}").trim_end(),
        ),
        None => Error::new(kind, format!("the engine refuses the graph: {error:#}")),
    }
}

/// Whether an error is a failed allocation: the executor's texts, or Rust's allocator's.
fn speaks_of_memory(text: &str) -> bool {
    let words = ["out of memory", "no memory left", "memory allocation of"];
    words.iter().any(|words| text.contains(words))
}
