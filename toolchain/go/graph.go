package wasmgraph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// ErrClosed is the error of a graph that is used after Close.
var ErrClosed = errors.New("the graph is closed")

// Options of Load.
type Options struct {
	// MaxMemory is how many bytes of memory each instance may have; 0 stands for what the engine has, 4 GiB.
	MaxMemory uint64

	// Timeout is the wall time that each run may take, instantiation included; 0 for no limit. Only with a
	// limit can the context of a run end it, too. Code that can be stopped looks at every turn of every loop whether
	// it should, which made three graphs 1.5 to 3 times as slow: where that is too slow, run the graph in a process
	// that can be killed, as cmd/wasmgraph-host does.
	Timeout time.Duration

	// CacheDir is a folder that keeps compiled code for the next time, or "". What lies in it is run as machine
	// code: it is made for this user alone.
	CacheDir string
}

// Graph is a compiled graph. Several goroutines may use it at once.
type Graph struct {
	metadata Metadata
	options  Options
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	cache    *codeCache

	running sync.RWMutex // read-locked by every call into a guest
	mutex   sync.Mutex
	idle    []*Instance
	closed  bool
}

// Load reads a graph from a file, compiles it, or takes the code compiled before, and starts it once, so that what is
// wrong with it shows.
//
// It returns a LoadError where there is no such file, or it is no graph that this host can run; MemoryLimitExceeded
// where it needs more to start with; RunTimeout where its start takes too long.
func Load(ctx context.Context, path string, options Options) (*Graph, error) {
	g, err := Compile(ctx, path, options)
	if err != nil {
		return nil, err
	}
	instance, err := g.NewInstance(ctx)
	if err != nil {
		return nil, errors.Join(about(path, err), g.Close())
	}
	g.giveBack(instance)
	return g, nil
}

// Compile is Load without the start: it runs nothing of the graph.
func Compile(ctx context.Context, path string, options Options) (*Graph, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, fail(LoadError, "%v", err)
	}
	g, err := CompileBytes(ctx, binary, options)
	return g, about(path, err)
}

// CompileBytes is Compile for a graph in memory.
func CompileBytes(ctx context.Context, binary []byte, options Options) (*Graph, error) {
	file, metadata, err := readGraph(binary)
	if err != nil {
		return nil, err
	}
	needed := file.memories[0].minimum * pageNBytes
	if options.MaxMemory > 0 && needed > options.MaxMemory {
		return nil, fail(MemoryLimitExceeded, "the graph needs %s of memory to start with, the limit is %s",
			formatSize(needed), formatSize(options.MaxMemory)).
			hint(fmt.Sprintf("allow at least %d bytes", needed))
	}
	g := &Graph{metadata: metadata, options: options}
	if err := g.compile(ctx, file, binary); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// about puts a file's name before an error's message.
func about(path string, err error) error {
	var known *Error
	if !errors.As(err, &known) {
		return err
	}
	return &Error{known.Kind, path + ": " + known.Message, known.Hint}
}

func (g *Graph) compile(ctx context.Context, file *moduleFile, binary []byte) error {
	binary = file.withBoundTables(binary)
	if g.options.CacheDir == "" {
		return g.compileWith(ctx, file, binary, g.config())
	}
	cache, err := openCache(g.options.CacheDir, binary, g.options.Timeout > 0)
	if err != nil {
		return fail(LoadError, "the cache of compiled code cannot be used: %v", err)
	}
	g.cache = cache
	problem := g.compileWith(ctx, file, binary, g.config().WithCompilationCache(cache.CompilationCache))
	if problem == nil {
		problem = cache.keep()
	}
	if problem == nil {
		return nil
	}
	// It may be the graph's fault or the cache's, which must not cost a result.
	if err := errors.Join(g.discard(ctx), cache.drop()); err != nil {
		return err
	}
	if err := g.compileWith(ctx, file, binary, g.config()); err != nil {
		return err
	}
	slog.Warn("compiled code is not kept", "entry", cache.entry, "error", problem)
	return nil
}

func (g *Graph) config() wazero.RuntimeConfig {
	config := wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).
		WithCloseOnContextDone(g.options.Timeout > 0)
	if g.options.MaxMemory > 0 {
		config = config.WithMemoryLimitPages(uint32(min(g.options.MaxMemory/pageNBytes, 65536)))
	}
	return config
}

func (g *Graph) compileWith(
	ctx context.Context, file *moduleFile, binary []byte, config wazero.RuntimeConfig,
) (err error) {
	// Where its compiler does not get along with a module, wazero panics.
	defer func() {
		if reason := recover(); reason != nil {
			err = fail(LoadError, "the engine cannot compile the graph: %v", reason)
		}
	}()
	g.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := defineWASI(ctx, g.runtime, file.imports); err != nil {
		return err
	}
	g.compiled, err = g.runtime.CompileModule(ctx, binary)
	if err != nil {
		return fail(LoadError, "not a valid WebAssembly module: %v", err).
			hint("the file may be damaged: compile the model again")
	}
	return g.checkSignatures()
}

// discard gives back what was compiled.
func (g *Graph) discard(ctx context.Context) error {
	var problems []error
	if g.runtime != nil {
		problems = append(problems, g.runtime.Close(ctx))
	}
	if g.cache != nil {
		problems = append(problems, g.cache.Close(ctx))
	}
	g.runtime, g.cache = nil, nil
	return errors.Join(problems...)
}

// signatures are the types of the functions that a host calls: parameters, and whether there is a result, all i32.
var signatures = map[string]struct {
	parameters int
	result     bool
}{
	"wg_abi": {0, true}, "wg_input": {3, true}, "wg_run": {0, true}, "wg_output": {1, true},
	"wg_output_shape": {2, true}, "wg_alloc": {1, true}, "wg_free": {2, false},
	"wg_error": {0, true}, "wg_error_len": {0, true}, "_initialize": {0, false}, "wg_step": {2, true},
}

func (g *Graph) checkSignatures() error {
	for name, function := range g.compiled.ExportedFunctions() {
		expected, known := signatures[name]
		if !known {
			continue
		}
		parameters := slices.Repeat([]api.ValueType{api.ValueTypeI32}, expected.parameters)
		var results []api.ValueType
		if expected.result {
			results = []api.ValueType{api.ValueTypeI32}
		}
		if !slices.Equal(function.ParamTypes(), parameters) || !slices.Equal(function.ResultTypes(), results) {
			return fail(LoadError, "the graph's function '%s' has another type than the ABI's", name)
		}
	}
	return nil
}

// Metadata is what the graph says of itself.
func (g *Graph) Metadata() Metadata { return g.metadata }

// Inputs are name, dtype and shape of every input, in the model's order.
func (g *Graph) Inputs() []TensorSpec { return g.metadata.Inputs }

// Outputs are name, dtype and shape of every output, in the model's order.
func (g *Graph) Outputs() []TensorSpec { return g.metadata.Outputs }

// Run runs the graph once on a tensor per input name, and returns one per output name.
//
// It returns an InputError where inputs are missing, extra, misnamed or of the wrong dtype or shape; an InferenceError
// where the graph fails; MemoryLimitExceeded or RunTimeout where it reaches a limit of Options; the context's error
// where that ends it; ErrClosed.
func (g *Graph) Run(ctx context.Context, inputs map[string]Tensor) (map[string]Tensor, error) {
	ordered, err := byName(g.metadata.Inputs, inputs)
	if err == nil {
		err = checkInputs(g.metadata.Inputs, ordered)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := g.limitTime(ctx)
	defer cancel()
	instance, err := g.take(ctx)
	if err != nil {
		return nil, err
	}
	results, err := instance.Run(ctx, ordered)
	if err != nil {
		return nil, err
	}
	g.giveBack(instance)
	outputs := make(map[string]Tensor, len(results))
	for i, spec := range g.metadata.Outputs {
		outputs[spec.Name] = results[i]
	}
	return outputs, nil
}

// Close waits for the runs under way and gives back memory and code. Instances from NewInstance go too.
func (g *Graph) Close() error {
	g.running.Lock()
	defer g.running.Unlock()
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	g.idle = nil
	return g.discard(context.Background())
}

func (g *Graph) limitTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if g.options.Timeout > 0 {
		return context.WithTimeout(ctx, g.options.Timeout)
	}
	return ctx, func() {}
}

// enter keeps the graph from being closed until the function that it returns is called.
func (g *Graph) enter() (leave func(), err error) {
	g.running.RLock()
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if g.closed {
		g.running.RUnlock()
		return nil, ErrClosed
	}
	return g.running.RUnlock, nil
}

func (g *Graph) take(ctx context.Context) (*Instance, error) {
	g.mutex.Lock()
	if last := len(g.idle) - 1; last >= 0 {
		instance := g.idle[last]
		g.idle = g.idle[:last]
		g.mutex.Unlock()
		return instance, nil
	}
	g.mutex.Unlock()
	return g.NewInstance(ctx)
}

func (g *Graph) giveBack(instance *Instance) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	if !g.closed {
		g.idle = append(g.idle, instance)
	}
}
