//! What can go wrong, with the kinds and exit codes of the wasmgraph command.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Other = 1,
    Load = 6,
    Input = 7,
    Memory = 8,
    Timeout = 9,
    Inference = 10,
}

#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl AsRef<str>) -> Self {
        Self {
            kind,
            message: printable(message.as_ref()),
        }
    }
}

/// Text that may come from a graph, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    let plain = |c: char| {
        if c.is_control() && c != '\n' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(plain).collect()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}
