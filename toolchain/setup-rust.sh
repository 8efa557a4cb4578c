#!/bin/sh
# Makes sure that this machine has a cargo and a rustc with a WASI target, which the link stage needs.
# Quick when they are there; otherwise asks rustup, then Debian's packages; else says what to run.
#
#   toolchain/setup-rust.sh           exits 0 when a graph can be linked, 5 otherwise
#
# wasmgraph/link/rust.py looks in the same places in the same order.
set -eu

debian_packages="rustc cargo libstd-rust-dev-wasm32 lld"

say() { printf 'setup-rust: %s\n' "$*" >&2; }

# The first WASI target whose standard library the given rustc has; fails if there is none.
wasi_target() {
    sysroot=$("$1" --print sysroot 2>/dev/null) || return 1
    for target in wasm32-wasip1 wasm32-wasi; do
        if [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
            echo "$target"
            return 0
        fi
    done
    return 1
}

# rustup's toolchains carry rust-lld; Debian's rustc wants it or wasm-ld from the package lld.
has_linker() {
    sysroot=$("$1" --print sysroot 2>/dev/null) || return 1
    for lld in "$sysroot"/lib/rustlib/*/bin/rust-lld; do
        [ -x "$lld" ] && return 0
    done
    command -v rust-lld >/dev/null 2>&1 || command -v wasm-ld >/dev/null 2>&1
}

# usable RUSTC CARGO: says so and succeeds when this pair can build for WASI.
usable() {
    command -v "$1" >/dev/null 2>&1 && command -v "$2" >/dev/null 2>&1 || return 1
    target=$(wasi_target "$1") && has_linker "$1" || return 1
    say "$("$1" --version) with $target is ready"
}

ready() {
    if [ -n "${WASMGRAPH_RUSTC:-}" ] || [ -n "${WASMGRAPH_CARGO:-}" ]; then
        usable "${WASMGRAPH_RUSTC:-rustc}" "${WASMGRAPH_CARGO:-cargo}"
        return
    fi
    # A rustup on PATH hides Debian's own rustc.
    usable rustc cargo || usable /usr/bin/rustc /usr/bin/cargo
}

# Rust 1.78 brought the name wasm32-wasip1, 1.84 dropped wasm32-wasi.
rustup_target() {
    minor=$(rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p')
    if [ -n "$minor" ] && [ "$minor" -lt 78 ]; then echo wasm32-wasi; else echo wasm32-wasip1; fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() {
    [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; }
}

apt_install() {
    # shellcheck disable=SC2086  # the list is meant to be split
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends $debian_packages >&2
}

ready && exit 0

if command -v rustup >/dev/null 2>&1; then
    target=$(rustup_target)
    say "rustup target add $target"
    if rustup target add "$target" >&2 && ready; then exit 0; fi
    say "rustup could not add $target"
fi

if command -v apt-get >/dev/null 2>&1 && can_be_root; then
    say "apt-get install $debian_packages"
    if ! apt_install; then
        # Lists that are missing or out of date are the usual reason.
        if ! { as_root apt-get update >&2 && apt_install; }; then
            say "apt-get could not install them"
        fi
    fi
    if ready; then exit 0; fi
fi

say "no Rust with a WASI target. Run one of these, then try again:"
if command -v rustup >/dev/null 2>&1; then
    say "    rustup target add $(rustup_target)"
else
    say "    (install rustup from https://rustup.rs, then)  rustup target add wasm32-wasip1"
fi
say "    sudo apt-get install $debian_packages      (Debian, Ubuntu)"
exit 5
