package wasmgraph

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The system interface a graph gets: every WASI function it may import, and nothing behind them. A graph
// computes; it needs no files, clock, network, environment or randomness, so none of wazero's WASI is linked in.
// Functions are answered as on a machine without anything:
//
//   - fd_write to stdout or stderr succeeds; the end of what went to stderr is kept for errors;
//   - there are no arguments, no environment, no preopened folders (a C library asks for them at start);
//   - proc_exit notes the code and returns: a C library traps right behind it;
//   - everything else fails with ENOTCAPABLE.

const (
	errnoSuccess    = 0
	errnoBadf       = 8
	errnoFault      = 21
	errnoInval      = 28
	errnoNotcapable = 76

	maxVectors = 1024
	// keptNBytes is how much of stderr is kept: the end, where a panic's message is.
	keptNBytes = 4096
)

// wasiParameters has the parameters of every function of WASI preview 1 (typenames.witx as lowered to wasm): i
// is i32, I is i64. All but proc_exit return an i32.
var wasiParameters = map[string]string{
	"args_get": "ii", "args_sizes_get": "ii", "clock_res_get": "ii", "clock_time_get": "iIi",
	"environ_get": "ii", "environ_sizes_get": "ii", "fd_advise": "iIIi", "fd_allocate": "iII",
	"fd_close": "i", "fd_datasync": "i", "fd_fdstat_get": "ii", "fd_fdstat_set_flags": "ii",
	"fd_fdstat_set_rights": "iII", "fd_filestat_get": "ii", "fd_filestat_set_size": "iI",
	"fd_filestat_set_times": "iIIi", "fd_pread": "iiiIi", "fd_prestat_dir_name": "iii",
	"fd_prestat_get": "ii", "fd_pwrite": "iiiIi", "fd_read": "iiii", "fd_readdir": "iiiIi",
	"fd_renumber": "ii", "fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "fd_write": "iiii",
	"path_create_directory": "iii", "path_filestat_get": "iiiii", "path_filestat_set_times": "iiiiIIi",
	"path_link": "iiiiiii", "path_open": "iiiiiIIii", "path_readlink": "iiiiii",
	"path_remove_directory": "iii", "path_rename": "iiiiii", "path_symlink": "iiiii",
	"path_unlink_file": "iii", "poll_oneoff": "iiii", "proc_exit": "i", "proc_raise": "i",
	"random_get": "ii", "sched_yield": "", "sock_accept": "iii", "sock_recv": "iiiiii",
	"sock_send": "iiiii", "sock_shutdown": "ii",
}

// console is what a guest has said in one call.
type console struct {
	stderr   []byte
	left     bool // whether it called proc_exit
	exitCode uint32
}

type consoleKey struct{}

// withConsole is a context in which guests run, so that what they say lands in `said`.
func withConsole(ctx context.Context, said *console) context.Context {
	return context.WithValue(ctx, consoleKey{}, said)
}

// defineWASI gives a runtime the functions that a graph imports, with WASI's types: that an import has another is
// found at the start of an instance.
func defineWASI(ctx context.Context, runtime wazero.Runtime, imports []importItem) error {
	if len(imports) == 0 {
		return nil
	}
	module := runtime.NewHostModuleBuilder(wasiModule)
	for _, name := range names(imports) {
		letters, known := wasiParameters[name]
		if !known {
			return fail(LoadError, "the graph imports '%s', which %s does not have", printable(name), wasiModule)
		}
		var parameters []api.ValueType
		for _, letter := range letters {
			parameters = append(parameters, map[rune]api.ValueType{'i': api.ValueTypeI32, 'I': api.ValueTypeI64}[letter])
		}
		results := []api.ValueType{api.ValueTypeI32}
		if name == "proc_exit" {
			results = nil
		}
		module.NewFunctionBuilder().WithGoModuleFunction(answerTo(name), parameters, results).Export(name)
	}
	_, err := module.Instantiate(ctx)
	return err
}

// names are those of the imported functions, each once.
func names(imports []importItem) []string {
	var found []string
	for _, item := range imports {
		found = append(found, item.name)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func answerTo(name string) api.GoModuleFunc {
	switch name {
	case "fd_write":
		return writeAnswer
	case "proc_exit":
		return exitAnswer
	}
	return func(_ context.Context, module api.Module, stack []uint64) {
		errno := errnoNotcapable
		switch name {
		case "args_sizes_get", "environ_sizes_get": // none, of zero bytes
			errno = errnoSuccess
			memory := module.Memory()
			if !memory.WriteUint32Le(uint32(stack[0]), 0) || !memory.WriteUint32Le(uint32(stack[1]), 0) {
				errno = errnoFault
			}
		case "args_get", "environ_get": // nothing to fill in
			errno = errnoSuccess
		case "fd_prestat_get": // how a C library learns that there are no preopened folders
			errno = errnoBadf
		}
		if len(stack) > 0 {
			stack[0] = uint64(errno)
		}
	}
}

func exitAnswer(ctx context.Context, _ api.Module, stack []uint64) {
	if said, ok := ctx.Value(consoleKey{}).(*console); ok {
		said.left, said.exitCode = true, uint32(stack[0])
	}
}

func writeAnswer(ctx context.Context, module api.Module, stack []uint64) {
	said, _ := ctx.Value(consoleKey{}).(*console)
	stack[0] = uint64(write(said, module.Memory(), uint32(stack[0]), uint32(stack[1]), uint32(stack[2]), uint32(stack[3])))
}

func write(said *console, memory api.Memory, descriptor, vectors, count, written uint32) int {
	if descriptor != 1 && descriptor != 2 {
		return errnoBadf
	}
	if count > maxVectors {
		return errnoInval
	}
	table, ok := memory.Read(vectors, 8*count)
	if !ok {
		return errnoFault
	}
	var total uint32
	for ; len(table) > 0; table = table[8:] {
		start, length := binary.LittleEndian.Uint32(table), binary.LittleEndian.Uint32(table[4:])
		text, ok := memory.Read(start, length)
		if !ok {
			return errnoFault
		}
		if descriptor == 2 && said != nil {
			// Only the end can be of interest, and a guest may name the same gigabyte many times.
			said.stderr = append(said.stderr, text[max(0, len(text)-keptNBytes):]...)
			said.stderr = said.stderr[max(0, len(said.stderr)-keptNBytes):]
		}
		total += length
	}
	if !memory.WriteUint32Le(written, total) {
		return errnoFault
	}
	return errnoSuccess
}
