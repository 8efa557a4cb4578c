//! A graph under Wasmtime, within limits and without capabilities.

use wasmtime::{Config, Engine, ExternType, Linker, Module};

use crate::error::{Error, Kind, Result};
use crate::guest::{Guest, Limits};
use crate::metadata::{nbytes, Metadata, Tensor};
use crate::npy::Array;
use crate::wasi;

const PAGE_NBYTES: u64 = 65536;

/// A graph that is ready to run.
pub struct Graph {
    pub metadata: Metadata,
    guest: Guest,
}

impl Graph {
    /// Compiles and starts a graph of any origin.
    ///
    /// # Errors
    /// It is no graph that this host can run, or needs more than the limits to start.
    pub fn load(bytes: &[u8], limits: Limits) -> Result<Self> {
        let metadata = Metadata::read(bytes)?;
        let refuse = |e| Error::new(Kind::Load, format!("the engine refuses the graph: {e:#}"));
        let mut config = Config::new();
        config.epoch_interruption(limits.time.is_some());
        let engine = Engine::new(&config).map_err(refuse)?;
        let module = Module::new(&engine, bytes).map_err(refuse)?;
        check_memory(&module, &limits)?;
        let mut linker = Linker::new(&engine);
        wasi::define(&mut linker, &module)?;
        let guest = Guest::start(&linker, &module, limits)?;
        Ok(Self { metadata, guest })
    }

    /// Runs the graph once on an array per input; an array per output, in the graph's order.
    ///
    /// # Errors
    /// The arrays are not what it takes, it fails, or it reaches a limit.
    pub fn run(&mut self, inputs: &[Array]) -> Result<Vec<Array>> {
        if inputs.len() != self.metadata.inputs.len() {
            let text = format!("{} inputs were given", inputs.len());
            return Err(Error::new(Kind::Input, text));
        }
        for (i, (spec, array)) in self.metadata.inputs.iter().zip(inputs).enumerate() {
            if array.dtype != spec.dtype || !spec.fits(&array.shape) {
                let text = format!("expected {spec}, found {}{:?}", array.dtype, array.shape);
                return Err(Error::new(Kind::Input, text));
            }
            let shape = spec
                .fixed_shape()
                .is_none()
                .then_some(array.shape.as_slice());
            let address = self.guest.declare(i, &spec.name, shape)?;
            self.guest.write(address, &array.data, &spec.name)?;
        }
        self.guest.run()?;
        let outputs = self.metadata.outputs.iter().enumerate();
        outputs
            .map(|(i, spec)| fetch(&mut self.guest, i, spec))
            .collect()
    }
}

/// Checks that the graph has the memory that it should, no larger than it may.
fn check_memory(module: &Module, limits: &Limits) -> Result<()> {
    let Some(ExternType::Memory(memory)) = module.get_export("memory") else {
        return Err(Error::new(Kind::Load, "the graph exports no memory"));
    };
    if memory.minimum().saturating_mul(PAGE_NBYTES) > limits.memory as u64 {
        let needed = format!("the graph starts with {} pages of memory", memory.minimum());
        let text = format!("{needed}; the limit is {} bytes", limits.memory);
        return Err(Error::new(Kind::Memory, text));
    }
    Ok(())
}

fn fetch(guest: &mut Guest, i: usize, spec: &Tensor) -> Result<Array> {
    let address = guest.output(i, &spec.name)?;
    let shape = match spec.fixed_shape() {
        Some(shape) => shape,
        None => guest.output_shape(i, &spec.name)?,
    };
    let nbytes = nbytes(&spec.dtype, shape.iter().copied()).filter(|_| spec.fits(&shape));
    let Some(nbytes) = nbytes else {
        let text = format!("the graph says that output {spec} has the shape {shape:?}");
        return Err(Error::new(Kind::Inference, text));
    };
    let data = guest.read(address, nbytes, &spec.name)?;
    Ok(Array {
        dtype: spec.dtype.clone(),
        shape,
        data,
    })
}
