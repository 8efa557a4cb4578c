//! The system interface a graph gets: every WASI function that it may import, and nothing behind them.
//!
//! A graph computes; it needs no files, clock, network, environment or randomness. So Wasmtime's WASI is
//! not even built in. Functions answer as on a machine without anything: there are no arguments, no
//! environment and no folders, what is written to stdout or stderr vanishes (but for the end of stderr,
//! where a panic's message is), and everything else fails with ENOTCAPABLE.

use wasmtime::{Caller, Extern, FuncType, Linker, Memory, Module, Val, ValType};

use crate::error::{Error, Kind, Result};
use crate::guest::Host;

const WASI: &str = "wasi_snapshot_preview1";

const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const NOTCAPABLE: i32 = 76;

const MAX_VECTORS: u32 = 1024;
const KEPT_NBYTES: usize = 4096;

/// Parameters of every function of WASI preview 1: i is i32, I is i64. All but proc_exit return an i32.
const PARAMETERS: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Defines the WASI functions among a module's imports, with WASI's types: that an import has another is
/// for the linker to find.
pub fn define(linker: &mut Linker<Host>, module: &Module) -> Result<()> {
    linker.allow_shadowing(true); // a module may import a function twice
    for import in module.imports() {
        let name = import.name();
        let known = PARAMETERS.iter().find(|(function, _)| *function == name);
        let (WASI, Some((name, letters))) = (import.module(), known) else {
            let text = format!("the graph imports '{name}' of '{}'", import.module());
            return Err(Error::new(Kind::Load, text));
        };
        let parameters = letters.chars().map(|letter| match letter {
            'I' => ValType::I64,
            _ => ValType::I32,
        });
        let results = (*name != "proc_exit").then_some(ValType::I32);
        let kind = FuncType::new(module.engine(), parameters, results);
        let defined = linker.func_new(WASI, name, kind, |mut caller, arguments, results| {
            let code = answer(&mut caller, name, arguments);
            if let Some(result) = results.first_mut() {
                *result = Val::I32(code);
            }
            Ok(())
        });
        defined.map_err(|e| Error::new(Kind::Load, format!("the graph's imports: {e}")))?;
    }
    Ok(())
}

fn answer(caller: &mut Caller<Host>, name: &str, arguments: &[Val]) -> i32 {
    let number = |i: usize| arguments[i].unwrap_i32() as u32;
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        return FAULT;
    };
    match name {
        "args_get" | "environ_get" => SUCCESS,
        "fd_prestat_get" => BADF, // how a C library learns that there are no folders
        "args_sizes_get" | "environ_sizes_get" => match store(caller, memory, number(0), 0) {
            SUCCESS => store(caller, memory, number(1), 0),
            code => code,
        },
        "fd_write" => match write(caller, memory, number(0), number(1), number(2)) {
            Ok(total) => store(caller, memory, number(3), total),
            Err(code) => code,
        },
        _ => NOTCAPABLE,
    }
}

/// How many bytes the vectors name; what goes to stderr is kept.
fn write(
    caller: &mut Caller<Host>,
    memory: Memory,
    descriptor: u32,
    vectors: u32,
    count: u32,
) -> std::result::Result<u32, i32> {
    if descriptor != 1 && descriptor != 2 {
        return Err(BADF);
    }
    if count > MAX_VECTORS {
        return Err(INVAL);
    }
    let (data, host) = memory.data_and_store_mut(caller);
    let mut total = 0u32;
    for vector in bytes(data, vectors, 8 * count).ok_or(FAULT)?.chunks(8) {
        let start = u32::from_le_bytes([vector[0], vector[1], vector[2], vector[3]]);
        let length = u32::from_le_bytes([vector[4], vector[5], vector[6], vector[7]]);
        let text = bytes(data, start, length).ok_or(FAULT)?;
        if descriptor == 2 {
            // Only the end can be of interest, and a guest may name the same gigabyte many times.
            let kept = &mut host.stderr;
            kept.extend_from_slice(&text[text.len().saturating_sub(KEPT_NBYTES)..]);
            kept.drain(..kept.len().saturating_sub(KEPT_NBYTES));
        }
        total = total.wrapping_add(length);
    }
    Ok(total)
}

fn store(caller: &mut Caller<Host>, memory: Memory, address: u32, value: u32) -> i32 {
    match memory.write(caller, address as usize, &value.to_le_bytes()) {
        Ok(()) => SUCCESS,
        Err(_) => FAULT,
    }
}

/// Bytes of a guest's memory, or None where they are not within it.
pub fn bytes(memory: &[u8], address: u32, nbytes: u32) -> Option<&[u8]> {
    memory.get(address as usize..)?.get(..nbytes as usize)
}
