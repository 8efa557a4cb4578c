//! The graph as a command: tensors come and go as NPY, on stdin and stdout or in files.

use std::fs::File;
use std::io::{self, Write};

use crate::abi;
use crate::graph::{engine, inputs, outputs, Tensor};
use crate::npy;

const HELP: &str = "\
Runs the graph once.

  < IN.npy > OUT.npy   where it has one input and one output
  -i NAME=FILE.npy     read an input from a file (-i FILE.npy where there is only one)
  -o NAME=FILE.npy     write an output to a file (-o FILE.npy where there is only one)
  --help               show this

Inputs and outputs not named by -i or -o use stdin and stdout, where there is only one.
The engine must open the files' folder to the graph, e.g. wasmtime run --dir=. model.wasm ...
";

/// Which files the tensors of one side use: one slot per tensor.
type Files = Vec<Option<String>>;

/// Runs the command with its arguments (without the program's name).
///
/// # Errors
/// What to print on stderr before leaving with exit code 1.
pub fn main(arguments: &[String]) -> Result<(), String> {
    let mut sources: Files = vec![None; inputs().len()];
    let mut targets: Files = vec![None; outputs().len()];
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let (files, tensors, kind) = match flag.as_str() {
            "--help" | "-h" => return help(),
            "-i" => (&mut sources, inputs(), "input"),
            "-o" => (&mut targets, outputs(), "output"),
            _ => return Err(["unknown argument '", flag, "' (try --help)"].concat()),
        };
        let value = rest.next().ok_or_else(|| {
            let expected = " is followed by NAME=FILE.npy";
            [flag.as_str(), expected].concat()
        })?;
        let (i, file) = assign(value, tensors, kind)?;
        if files[i].replace(file.to_string()).is_some() {
            return Err([kind, " '", tensors[i].name(), "' was given twice"].concat());
        }
    }
    check_complete(&sources, &targets)?;
    for (i, file) in sources.iter().enumerate() {
        read(i, file.as_deref())?;
    }
    abi::run()?;
    let all_to_files = targets.iter().any(Option::is_some);
    for (i, file) in targets.iter().enumerate() {
        if file.is_some() || !all_to_files {
            write(i, file.as_deref())?;
        }
    }
    Ok(())
}

/// Splits NAME=FILE, or FILE alone where there is only one tensor. ONNX names may contain "=".
fn assign<'a>(value: &'a str, tensors: &[Tensor], kind: &str) -> Result<(usize, &'a str), String> {
    for (i, tensor) in tensors.iter().enumerate() {
        let file = value
            .strip_prefix(tensor.name())
            .and_then(|rest| rest.strip_prefix('='));
        if let Some(file) = file {
            return Ok((i, file));
        }
    }
    match value.rsplit_once('=') {
        None if tensors.len() == 1 => Ok((0, value)),
        None => Err([
            "'",
            value,
            "' does not say which ",
            kind,
            " it is for: ",
            &names(tensors),
        ]
        .concat()),
        Some((name, _)) => Err(["no ", kind, " '", name, "': there is ", &names(tensors)].concat()),
    }
}

/// Every input must have a source, and something must become of the outputs.
fn check_complete(sources: &Files, targets: &Files) -> Result<(), String> {
    if inputs().len() != 1 {
        let lacking: Vec<&Tensor> = inputs()
            .iter()
            .zip(sources)
            .filter(|(_, file)| file.is_none())
            .map(|(input, _)| input)
            .collect();
        if !lacking.is_empty() {
            let rest = "; give every input with -i NAME=FILE.npy";
            return Err(["no file for input ", &names(lacking), rest].concat());
        }
    }
    if outputs().len() != 1 && targets.iter().all(Option::is_none) {
        let rest = "; give those you want with -o NAME=FILE.npy";
        return Err(["there are several outputs, ", &names(outputs()), rest].concat());
    }
    Ok(())
}

fn names<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> String {
    let quoted: Vec<String> = tensors
        .into_iter()
        .map(|tensor| ["'", tensor.name(), "'"].concat())
        .collect();
    quoted.join(", ")
}

fn read(i: usize, file: Option<&str>) -> Result<(), String> {
    let input = &inputs()[i];
    let mut source = match file {
        Some(path) => File::open(path).map_err(|error| about(path, &error))?,
        None => standard(0),
    };
    let explain = |text: String| {
        let place = file.unwrap_or("stdin");
        [place, ": ", &text, " (for input '", input.name(), "')"].concat()
    };
    let shape = npy::read_shape(&mut source, input.dtype()).map_err(explain)?;
    let extents = shape.clone();
    let address = abi::declare(i, shape).map_err(explain)?;
    // As there is room for it, its size does not overflow.
    let nbytes = extents.iter().product::<i64>() as usize * input.dtype().nbytes;
    // The input's address is that of as many bytes as its shape needs.
    let data = unsafe { std::slice::from_raw_parts_mut(address, nbytes) };
    npy::read_data(&mut source, data).map_err(explain)
}

fn write(i: usize, file: Option<&str>) -> Result<(), String> {
    let output = &outputs()[i];
    let given = (engine().output)(i)?;
    let mut target = match file {
        Some(path) => File::create(path).map_err(|error| about(path, &error))?,
        None => standard(1),
    };
    let nbytes = given.dims.iter().product::<i64>() as usize * output.dtype().nbytes;
    // As many bytes as the output has lie there, in whichever region.
    let data = unsafe { std::slice::from_raw_parts(given.start, nbytes) };
    npy::write(&mut target, output.dtype(), &given.dims, data)
        .map_err(|error| about(file.unwrap_or("stdout"), &error))
}

/// stdin (0), stdout (1) or stderr (2) as a plain file. io::stdin() and its like would add buffers,
/// which whole tensors do not need, and 20 KB of code.
fn standard(descriptor: i32) -> File {
    #[cfg(unix)]
    use std::os::unix::io::{FromRawFd, RawFd};
    #[cfg(target_os = "wasi")]
    use std::os::wasi::io::{FromRawFd, RawFd};
    // Each is opened at most once: dropping the file closes it.
    unsafe { File::from_raw_fd(descriptor as RawFd) }
}

fn about(path: &str, error: &io::Error) -> String {
    [path, ": ", &error.to_string()].concat()
}

fn help() -> Result<(), String> {
    let mut text = HELP.to_string();
    for (title, tensors) in [("\nInputs:\n", inputs()), ("\nOutputs:\n", outputs())] {
        text.push_str(title);
        for tensor in tensors {
            let kind = abi::describe(tensor.dtype().name, tensor.shape());
            text.push_str(&["  ", tensor.name(), "  ", &kind, "\n"].concat());
        }
    }
    let written = standard(1).write_all(text.as_bytes());
    written.map_err(|error| about("stdout", &error))
}

/// The two ways into the module. Only WASI's linker knows the constructors.
#[cfg(target_os = "wasi")]
mod entry {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    extern "C" {
        fn __wasm_call_ctors();
    }

    static INITIALIZED: AtomicBool = AtomicBool::new(false);

    /// Runs the C library's constructors, once. That the module calls them itself also keeps the
    /// linker from wrapping every export in a shim which runs them on each call.
    #[no_mangle]
    pub extern "C" fn _initialize() {
        if !INITIALIZED.swap(true, Ordering::Relaxed) {
            unsafe { __wasm_call_ctors() }
        }
    }

    #[no_mangle]
    pub extern "C" fn _start() {
        _initialize();
        let arguments: Vec<String> = std::env::args_os()
            .skip(1)
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        if let Err(text) = super::main(&arguments) {
            let line = ["error: ", &text, "\n"].concat();
            // Nobody is left to tell when stderr is closed.
            let _ = super::standard(2).write_all(line.as_bytes());
            std::process::exit(1);
        }
    }
}
