//! Runs a graph on one NPY file and prints the classes that it finds most likely.
//!
//!     cargo run --release -- GRAPH.wasm IN.npy --labels labels.txt --top 3
//!
//! Leaves with the exit codes of the wasmgraph command.

mod error;
mod graph;
mod guest;
mod metadata;
mod npy;
mod wasi;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use error::{Error, Kind, Result};
use graph::Graph;
use guest::Limits;
use npy::Array;

const USAGE: &str = "\
usage: classify GRAPH.wasm IN.npy [flags]
  --labels FILE         the name of a class on each line
  --top N               how many classes to print (3)
  --output FILE         write the output as NPY
  --max-memory BYTES    what the graph may have (1073741824)
  --timeout SECONDS     how long it may run, such as 10s";
const EXIT_USAGE: u8 = 2;

/// What the command line asks for.
struct Task {
    files: Vec<PathBuf>,
    labels: Option<PathBuf>,
    output: Option<PathBuf>,
    top: usize,
    limits: Limits,
}

fn main() -> ExitCode {
    let Some(task) = parse(env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    match classify(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind as u8)
        }
    }
}

/// The command line, or None where it cannot be understood.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Task> {
    let limits = Limits {
        memory: 1 << 30,
        time: None,
    };
    let mut task = Task {
        files: vec![],
        labels: None,
        output: None,
        top: 3,
        limits,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--labels" => task.labels = Some(arguments.next()?.into()),
            "--output" => task.output = Some(arguments.next()?.into()),
            "--top" => task.top = arguments.next()?.parse().ok()?,
            "--max-memory" => task.limits.memory = arguments.next()?.parse().ok()?,
            "--timeout" => {
                let seconds = arguments.next()?.trim_end_matches('s').parse().ok()?;
                task.limits.time = Some(Duration::try_from_secs_f64(seconds).ok()?);
            }
            flag if flag.starts_with('-') => return None,
            file => task.files.push(file.into()),
        }
    }
    (task.files.len() == 2).then_some(task)
}

fn classify(task: Task) -> Result<()> {
    let [path, input] = task.files.as_slice() else {
        unreachable!("parse has seen to it")
    };
    let unreadable = |e| Error::new(Kind::Load, format!("{}: {e}", path.display()));
    let bytes = fs::read(path).map_err(unreadable)?;
    let mut graph = Graph::load(&bytes, task.limits)?;
    describe(&graph, path);
    if graph.metadata.inputs.len() != 1 || graph.metadata.outputs.is_empty() {
        return Err(Error::new(
            Kind::Input,
            "this sample is for graphs of one input",
        ));
    }
    let image = npy::read(input)?;
    let began = Instant::now();
    let outputs = graph.run(&[image])?;
    eprintln!("run {:?}", began.elapsed());
    if let Some(path) = &task.output {
        npy::write(path, &outputs[0])?;
    }
    print_top(&outputs[0], task.labels.as_deref(), task.top)
}

/// Prints what the graph says of itself, which takes no run.
fn describe(graph: &Graph, path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let metadata = &graph.metadata;
    let model = &metadata.model;
    println!(
        "{name}: {:?}, opset {}, {}, {} bytes of weights",
        model.name,
        model.opset,
        metadata.simd,
        metadata.weights_nbytes()
    );
    for spec in &metadata.inputs {
        println!("input  {spec}");
    }
    for spec in &metadata.outputs {
        println!("output {spec}");
    }
    println!();
}

/// Prints the classes with the largest values of the first output.
fn print_top(output: &Array, labels: Option<&Path>, top: usize) -> Result<()> {
    if output.dtype != "float32" {
        let text = format!("the classes should be float32, not {}", output.dtype);
        return Err(Error::new(Kind::Input, text));
    }
    let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let values: Vec<f32> = output.data.chunks_exact(4).map(value).collect();
    let names = read_labels(labels, values.len())?;
    let mut classes: Vec<usize> = (0..values.len()).collect();
    classes.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    for &class in classes.iter().take(top) {
        println!("{:<12} {:.4}", names[class], values[class]);
    }
    Ok(())
}

/// The names of the classes: their numbers where there is no file.
fn read_labels(path: Option<&Path>, classes: usize) -> Result<Vec<String>> {
    let Some(path) = path else {
        return Ok((0..classes).map(|class| class.to_string()).collect());
    };
    let refuse = |reason: String| Error::new(Kind::Input, format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
    let names: Vec<String> = text.lines().map(str::to_string).collect();
    if names.len() != classes {
        return Err(refuse(format!(
            "{} labels for {classes} classes",
            names.len()
        )));
    }
    Ok(names)
}
