//! What a graph says of itself, in its custom section `wasmgraph`: read without running anything.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::IgnoredAny;
use serde::Deserialize;
use wasmparser::{Parser, Payload};

use crate::error::{printable, Error, Kind, Result};

const SECTION: &str = "wasmgraph";
const ABI: u64 = 1;
pub const MAX_RANK: usize = 32;
const MAX_TENSOR_NBYTES: u64 = (1 << 31) - 1;

#[derive(Deserialize)]
pub struct Metadata {
    abi: u64,
    pub model: Model,
    pub simd: String,
    threads: bool,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    sizes: HashMap<String, u64>,
    kernels: Vec<IgnoredAny>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
pub struct Model {
    pub name: String,
    pub opset: u64,
}

/// A call of a kernel, by its index.
#[derive(Deserialize)]
struct Step {
    kernel: usize,
}

#[derive(Deserialize)]
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<Extent>,
}

/// The length of an axis, or the name of one that a run decides.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Extent {
    Size(u64),
    Axis(String),
}

impl Metadata {
    /// Finds the metadata in a module's bytes, of any origin, and checks them.
    pub fn read(module: &[u8]) -> Result<Self> {
        let refuse = |reason: String| Error::new(Kind::Load, reason);
        let mut found = None;
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload.map_err(|e| refuse(format!("not a valid wasm file: {e}")))?;
            let Payload::CustomSection(section) = payload else {
                continue;
            };
            if section.name() == SECTION && found.replace(section.data()).is_some() {
                return Err(refuse(format!("two custom sections '{SECTION}'")));
            }
        }
        let section = found.ok_or_else(|| refuse("a wasm module, but no graph".into()))?;
        let metadata: Self = serde_json::from_slice(section)
            .map_err(|e| refuse(format!("the graph's metadata: {e}")))?;
        metadata.check().map_err(refuse)?;
        Ok(metadata)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.abi != ABI {
            return Err(format!("the graph has ABI {}, not {ABI}", self.abi));
        }
        if self.threads || !["none", "simd128"].contains(&self.simd.as_str()) {
            return Err("this sample runs graphs for one thread, with simd128 or none".into());
        }
        for tensors in [&self.inputs, &self.outputs] {
            let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
            if names.len() < tensors.len() {
                return Err("two tensors of the graph have one name".into());
            }
            for tensor in tensors {
                let sizes = tensor.shape.iter().filter_map(Extent::size);
                if tensor.shape.len() > MAX_RANK || nbytes(&tensor.dtype, sizes).is_none() {
                    return Err(format!("there can be no tensor {tensor}"));
                }
            }
        }
        if self
            .steps
            .iter()
            .any(|step| step.kernel >= self.kernels.len())
        {
            return Err("the graph calls a kernel that it does not have".into());
        }
        if !self.sizes.contains_key("weights") {
            return Err("the graph's metadata have no size of the weights".into());
        }
        Ok(())
    }

    /// Bytes of the weights in the file.
    pub fn weights_nbytes(&self) -> u64 {
        self.sizes["weights"]
    }
}

impl Extent {
    fn size(&self) -> Option<u64> {
        match self {
            Extent::Size(size) => Some(*size),
            Extent::Axis(_) => None,
        }
    }
}

impl Tensor {
    /// Its shape where every extent is known.
    pub fn fixed_shape(&self) -> Option<Vec<u64>> {
        self.shape.iter().map(Extent::size).collect()
    }

    /// Whether a tensor of this shape can stand here.
    pub fn fits(&self, shape: &[u64]) -> bool {
        let fits = |(known, given): (&Extent, &u64)| known.size().is_none_or(|size| size == *given);
        // An output of any rank has the shape ["..."].
        matches!(self.shape.as_slice(), [Extent::Axis(axis)] if axis == "...")
            || shape.len() == self.shape.len() && self.shape.iter().zip(shape).all(fits)
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let extent = |extent: &Extent| match extent {
            Extent::Size(size) => size.to_string(),
            Extent::Axis(name) => name.clone(),
        };
        let shape: Vec<String> = self.shape.iter().map(extent).collect();
        let text = format!("{}: {}[{}]", self.name, self.dtype, shape.join(", "));
        f.write_str(&printable(&text))
    }
}

/// How many bytes a tensor has, or None where there can be no such tensor.
pub fn nbytes(dtype: &str, shape: impl Iterator<Item = u64>) -> Option<usize> {
    let mut nbytes = item_nbytes(dtype)?;
    let mut is_empty = false;
    for extent in shape {
        // Bounded without its zeros too, so that no product of extents overflows.
        is_empty |= extent == 0;
        nbytes = nbytes
            .checked_mul(extent.max(1))
            .filter(|&n| n <= MAX_TENSOR_NBYTES)?;
    }
    Some(if is_empty { 0 } else { nbytes as usize })
}

fn item_nbytes(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "int64" | "uint64" | "float64" => 8,
        "int32" | "uint32" | "float32" => 4,
        "int16" | "uint16" | "float16" | "bfloat16" => 2,
        "bool" | "int8" | "uint8" | "int4" | "uint4" | "int2" | "uint2" => 1,
        "float8_e4m3fn" | "float8_e4m3fnuz" | "float8_e5m2" | "float8_e5m2fnuz" => 1,
        "float8_e8m0fnu" | "float4_e2m1fn" => 1,
        _ => return None,
    })
}
