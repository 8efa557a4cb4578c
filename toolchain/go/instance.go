package wasmgraph

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

const (
	// staticShape, as the rank in wg_input, says that the shape is the one compiled in.
	staticShape = 1<<32 - 1
	// maxErrorNBytes of the guest's error text are kept.
	maxErrorNBytes = 65536
	scratchNBytes  = 8 * maxRank
)

// Instance is one instantiated graph, for one goroutine at a time. Graph.Run makes as many as it needs by itself.
//
// Nothing that the guest says is believed: every pointer, length and text is checked against its memory before it is
// touched. After any error but an InputError an instance is closed.
type Instance struct {
	graph     *Graph
	module    api.Module
	functions map[string]api.Function
	stack     [3]uint64
	scratch   uint32 // where the guest's memory has room for a shape, 0 before it was asked for
}

// NewInstance instantiates the graph; its errors are those of Load.
func (g *Graph) NewInstance(ctx context.Context) (*Instance, error) {
	leave, err := g.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := g.limitTime(ctx)
	defer cancel()
	i := &Instance{graph: g, functions: map[string]api.Function{}}
	said := &console{}
	if err := i.start(withConsole(ctx, said)); err != nil {
		return nil, i.giveUp(err, LoadError, said)
	}
	return i, nil
}

func (i *Instance) start(ctx context.Context) (err error) {
	// Anonymous, so that there can be many; _start would run the command.
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	i.module, err = i.graph.runtime.InstantiateModule(ctx, i.graph.compiled, config)
	if err != nil {
		return err
	}
	for name := range signatures {
		if function := i.module.ExportedFunction(name); function != nil {
			i.functions[name] = function
		}
	}
	if i.functions["_initialize"] != nil {
		if _, err := i.call(ctx, "_initialize"); err != nil {
			return err
		}
	}
	abi, err := i.call(ctx, "wg_abi")
	if err == nil && abi != abiVersion {
		err = fail(LoadError, "the graph has ABI %d, this host runs ABI %d", abi, abiVersion).
			hint("compile the model again with this version")
	}
	return err
}

// Run runs the graph once on a tensor per input, and returns one per output, in the graph's order. Its errors are
// those of Graph.Run.
func (i *Instance) Run(ctx context.Context, inputs []Tensor) ([]Tensor, error) {
	if err := checkInputs(i.graph.metadata.Inputs, inputs); err != nil {
		return nil, err
	}
	var outputs []Tensor
	err := i.guest(ctx, func(ctx context.Context) (err error) {
		outputs, err = i.run(ctx, inputs)
		return err
	})
	return outputs, err
}

// Step runs one kernel call alone so many times, on whatever its buffers hold, to see how long it takes.
func (i *Instance) Step(ctx context.Context, index, times uint32) error {
	return i.guest(ctx, func(ctx context.Context) error {
		if i.functions["wg_step"] == nil {
			return fail(InferenceError, "the graph cannot run its steps one by one").
				hint("compile the model again with this version")
		}
		code, err := i.call(ctx, "wg_step", uint64(index), uint64(times))
		if err == nil && code != 0 {
			err = fail(InferenceError, "step %d failed with code %d", index, int32(code))
		}
		return err
	})
}

// Close gives back the instance's memory; calling it again does nothing.
func (i *Instance) Close() error {
	if i.module == nil {
		return nil
	}
	module := i.module
	i.module = nil
	return module.Close(context.Background())
}

// guest lets the guest run inside `work`, within the time limit.
func (i *Instance) guest(ctx context.Context, work func(ctx context.Context) error) error {
	leave, err := i.graph.enter()
	if err != nil {
		return err
	}
	defer leave()
	if i.module == nil {
		return fail(InferenceError, "the instance is closed")
	}
	if err := ctx.Err(); err != nil {
		return i.giveUp(err, InferenceError, &console{})
	}
	ctx, cancel := i.graph.limitTime(ctx)
	defer cancel()
	said := &console{}
	if err := work(withConsole(ctx, said)); err != nil {
		return i.giveUp(err, InferenceError, said)
	}
	return nil
}

// giveUp closes the instance, of whose memory nothing can be said any more, and explains why.
func (i *Instance) giveUp(err error, kind Kind, said *console) error {
	if KindOf(err) == "" {
		err = i.explain(err, kind, said)
	}
	return errors.Join(err, i.Close())
}

func (i *Instance) run(ctx context.Context, inputs []Tensor) ([]Tensor, error) {
	for index, spec := range i.graph.metadata.Inputs {
		if err := i.feed(ctx, index, spec, inputs[index]); err != nil {
			return nil, err
		}
	}
	code, err := i.call(ctx, "wg_run")
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, i.report(ctx, fmt.Sprintf("the graph failed with code %d", code))
	}
	outputs := make([]Tensor, len(i.graph.metadata.Outputs))
	for index, spec := range i.graph.metadata.Outputs {
		if outputs[index], err = i.fetch(ctx, index, spec); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

func (i *Instance) feed(ctx context.Context, index int, spec TensorSpec, tensor Tensor) error {
	place, rank := uint32(0), uint64(staticShape)
	if !spec.IsFixed() {
		var err error
		if place, err = i.findScratch(ctx); err != nil {
			return err
		}
		rank = uint64(len(tensor.Shape))
		dims := make([]byte, 0, scratchNBytes)
		for _, extent := range tensor.Shape {
			dims = binary.LittleEndian.AppendUint64(dims, uint64(extent))
		}
		if !i.module.Memory().Write(place, dims) {
			return fail(InferenceError, "the graph's memory for a shape lies outside its memory")
		}
	}
	pointer, err := i.call(ctx, "wg_input", uint64(index), uint64(place), rank)
	if err != nil {
		return err
	}
	if pointer == 0 {
		return i.report(ctx, fmt.Sprintf("the graph rejects input '%s'", printable(spec.Name)))
	}
	if !i.module.Memory().Write(pointer, tensor.Data) {
		return i.outside("tensor '"+printable(spec.Name)+"'", pointer, len(tensor.Data))
	}
	return nil
}

func (i *Instance) fetch(ctx context.Context, index int, spec TensorSpec) (Tensor, error) {
	pointer, err := i.call(ctx, "wg_output", uint64(index))
	if err != nil {
		return Tensor{}, err
	}
	if pointer == 0 {
		return Tensor{}, i.report(ctx, fmt.Sprintf("the graph has no output '%s'", printable(spec.Name)))
	}
	shape := spec.extents()
	if !spec.IsFixed() {
		if shape, err = i.outputShape(ctx, index, spec); err != nil {
			return Tensor{}, err
		}
	}
	nbytes, possible := sizeOf(spec.DType, shape)
	if !possible {
		return Tensor{}, fail(InferenceError, "the graph says that output %v has the shape %s", spec, formatShape(shape))
	}
	view, inside := i.module.Memory().Read(pointer, uint32(nbytes))
	if !inside {
		return Tensor{}, i.outside("tensor '"+printable(spec.Name)+"'", pointer, int(nbytes))
	}
	return Tensor{DType: spec.DType, Shape: shape, Data: append([]byte{}, view...)}, nil
}

// outputShape is the shape of an output after a run, which fits what the graph says of it.
func (i *Instance) outputShape(ctx context.Context, index int, spec TensorSpec) ([]int64, error) {
	rank, err := i.call(ctx, "wg_output_shape", uint64(index), 0)
	if err != nil {
		return nil, err
	}
	if rank > maxRank {
		return nil, i.report(ctx, fmt.Sprintf("the graph gives output '%s' no shape", printable(spec.Name)))
	}
	place, err := i.findScratch(ctx)
	if err != nil {
		return nil, err
	}
	if _, err = i.call(ctx, "wg_output_shape", uint64(index), uint64(place)); err != nil {
		return nil, err
	}
	dims, inside := i.module.Memory().Read(place, scratchNBytes)
	if !inside {
		return nil, i.outside("the shape", place, scratchNBytes)
	}
	shape := make([]int64, rank)
	for axis := range shape {
		shape[axis] = int64(binary.LittleEndian.Uint64(dims[8*axis:]))
	}
	if !spec.fits(shape) {
		return nil, fail(InferenceError, "the graph says that output %v has the shape %s", spec, formatShape(shape))
	}
	return shape, nil
}

// findScratch is where the guest's memory has room for the shape of one tensor.
func (i *Instance) findScratch(ctx context.Context) (uint32, error) {
	if i.scratch == 0 {
		place, err := i.call(ctx, "wg_alloc", scratchNBytes)
		if err != nil {
			return 0, err
		}
		i.scratch = place
	}
	if _, inside := i.module.Memory().Read(i.scratch, scratchNBytes); i.scratch == 0 || !inside {
		return 0, i.report(ctx, "the graph has no memory left for a shape")
	}
	return i.scratch, nil
}

// call calls an export, whose result, if it has one, is an address, a size or a code: an unsigned number.
func (i *Instance) call(ctx context.Context, name string, arguments ...uint64) (uint32, error) {
	stack := i.stack[:max(1, len(arguments))]
	copy(stack, arguments)
	if err := i.functions[name].CallWithStack(ctx, stack); err != nil {
		return 0, err
	}
	return uint32(stack[0]), nil
}

// report is what the guest says of its own failure.
func (i *Instance) report(ctx context.Context, what string) error {
	pointer, err := i.call(ctx, "wg_error")
	if err != nil {
		return err
	}
	length, err := i.call(ctx, "wg_error_len")
	if err != nil {
		return err
	}
	view, inside := i.module.Memory().Read(pointer, length)
	if !inside {
		return i.outside("its error text", pointer, int(length))
	}
	text := decode(view[:min(length, maxErrorNBytes)])
	if text != "" {
		what += ": " + text
	}
	if i.graph.options.MaxMemory > 0 && speaksOfMemory(text) {
		return i.overLimit(what + "; ")
	}
	return fail(InferenceError, "%s", what)
}

func (i *Instance) outside(what string, pointer uint32, nbytes int) error {
	pages, _ := i.module.Memory().Grow(0)
	return fail(InferenceError, "the graph says that %s (%d bytes) lies at %#x, which is outside its memory of %d bytes",
		what, nbytes, pointer, uint64(pages)*pageNBytes)
}

func (i *Instance) overLimit(message string) error {
	return fail(MemoryLimitExceeded, "%sthe limit is %s", message, formatSize(i.graph.options.MaxMemory)).
		hint("allow more memory, or none at all to use what the engine has (4 GiB)")
}

// explain says why the engine stopped the guest.
func (i *Instance) explain(err error, kind Kind, said *console) error {
	var exit *sys.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == sys.ExitCodeContextCanceled || errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	if exit != nil && exit.ExitCode() == sys.ExitCodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
		return fail(RunTimeout, "the graph was stopped after its time limit of %g s", i.graph.options.Timeout.Seconds())
	}
	reason, trace, _ := strings.Cut(err.Error(), "\n")
	_, trapped, isTrap := strings.Cut(reason, "wasm error: ")
	if !isTrap {
		return fail(kind, "the engine refuses the graph: %s", printable(err.Error()))
	}
	if said.left {
		trapped = fmt.Sprintf("it left with exit code %d", said.exitCode)
	}
	message := "the graph trapped" + i.kernelIn(trace) + ": " + printable(trapped)
	if text := decode(said.stderr); text != "" {
		message += "\n" + text
		if i.graph.options.MaxMemory > 0 && speaksOfMemory(text) {
			return i.overLimit(message + "\n")
		}
	}
	return fail(kind, "%s", message)
}

// kernelIn is " in kernel NAME (OPERATORS)" of the innermost kernel in a stack trace, or "".
func (i *Instance) kernelIn(trace string) string {
	kernels := map[string]string{}
	for _, kernel := range i.graph.metadata.Kernels {
		kernels[kernel.Symbol] = kernel.Description
	}
	for _, line := range strings.Split(trace, "\n") {
		// A frame is "\t.name(i32,i32) i32".
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "\t."), "(")
		if description, known := kernels[name]; known {
			return printable(" in kernel " + name + " (" + description + ")")
		}
	}
	return ""
}

// speaksOfMemory says whether an error is a failed allocation: the executor's texts, or Rust's allocator's.
func speaksOfMemory(text string) bool {
	for _, words := range []string{"out of memory", "no memory left", "memory allocation of"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

func decode(text []byte) string {
	return printable(strings.TrimSpace(strings.ToValidUTF8(string(text), "\ufffd")))
}
