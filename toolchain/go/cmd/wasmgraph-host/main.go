// Command wasmgraph-host is a process that runs one graph under wazero for the Python package.
//
// It reads requests on stdin and answers each on stdout, in order. A frame is the length of a JSON header (u32,
// little-endian), the header, and as many bytes of tensors as its "payload" says. The requests are load, instantiate,
// run, step and close.
//
// wazero's own way of stopping a guest makes it up to three times as slow, so a time limit is kept by this process as
// a whole: when it is over, RunTimeout is the last answer, and the process ends.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"wasmgraph"
)

// afterEnd is how long a request may still take once nobody can send any more.
const afterEnd = time.Second

// maxSeconds is the longest time limit, some thirty years: a longer one would not fit a Duration.
const maxSeconds = 1e9

// exitTimeout is the exit code where a run took too long: that of `wasmgraph run`.
const exitTimeout = 9

type host struct {
	stdout    *bufio.Writer
	writing   sync.Mutex
	graph     *wasmgraph.Graph
	path      string
	limit     time.Duration
	instances map[int]*wasmgraph.Instance
	made      int
}

func main() {
	// A guest holds a processor while it runs: one more must be there to watch the time.
	runtime.GOMAXPROCS(max(2, runtime.NumCPU()))
	h := &host{stdout: bufio.NewWriterSize(os.Stdout, 1<<16), instances: map[int]*wasmgraph.Instance{}}
	if err := h.serve(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "wasmgraph-host:", err)
		os.Exit(1)
	}
}

func (h *host) serve(stdin io.Reader) error {
	if err := h.send(greeting()); err != nil {
		return err
	}
	requests, broken := make(chan *request), make(chan error, 1)
	go func() {
		defer close(requests)
		stream := bufio.NewReaderSize(stdin, 1<<16)
		for {
			r, err := readRequest(stream)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					broken <- err
				}
				// Nobody waits for a run that does not end.
				time.AfterFunc(afterEnd, func() { os.Exit(1) })
				return
			}
			requests <- r
		}
	}()
	for r := range requests {
		if err := h.send(h.answer(r)); err != nil {
			return err
		}
	}
	select {
	case err := <-broken:
		return err
	default:
		return nil
	}
}

func greeting() map[string]any {
	return map[string]any{
		"host": "wazero", "version": engineVersion(), "protocol": 1,
		"capabilities": map[string]bool{
			"simd": true, "relaxed_simd": false, "threads": false, "memory_limit": true, "time_limit": true,
		},
	}
}

func engineVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/tetratelabs/wazero" {
				return module.Version
			}
		}
	}
	return "unknown"
}

func (h *host) send(frame any) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	var payload [][]byte
	if a, ok := frame.(answer); ok {
		for _, part := range a.payload {
			a.Payload += uint64(len(part))
		}
		frame, payload = a, a.payload
	}
	if err := writeFrame(h.stdout, frame, payload...); err != nil {
		return err
	}
	return h.stdout.Flush()
}

func (h *host) answer(r *request) answer {
	var result answer
	var err error
	switch r.Do {
	case "load":
		result, err = h.load(r)
	case "instantiate":
		result, err = h.instantiate()
	case "run":
		result, err = h.run(r)
	case "step":
		result, err = h.step(r)
	case "close":
		if instance := h.instances[r.Instance]; instance != nil {
			delete(h.instances, r.Instance)
			err = instance.Close()
		}
		result.OK = struct{}{}
	default:
		err = fmt.Errorf("unknown request %q", r.Do)
	}
	if err != nil {
		return failure(err)
	}
	return result
}

func (h *host) load(r *request) (answer, error) {
	if h.graph != nil {
		return answer{}, errors.New("there is a graph already")
	}
	if r.Threads > 1 {
		return answer{}, &wasmgraph.Error{Kind: wasmgraph.LoadError, Message: "wazero runs a graph on one thread"}
	}
	options := wasmgraph.Options{}
	if r.Memory != nil {
		options.MaxMemory = *r.Memory
	}
	if r.Seconds != nil {
		h.limit = time.Duration(min(*r.Seconds, maxSeconds) * float64(time.Second))
	}
	if r.Cache {
		options.CacheDir = cacheFolder()
	}
	began := time.Now()
	graph, err := wasmgraph.Compile(context.Background(), r.Path, options)
	if err != nil {
		return answer{}, err
	}
	h.path, h.graph = r.Path, graph
	return answer{OK: map[string]float64{"load_ms": milliseconds(began)}}, nil
}

func (h *host) instantiate() (answer, error) {
	if h.graph == nil {
		return answer{}, errors.New("there is no graph yet")
	}
	defer h.watch()()
	began := time.Now()
	instance, err := h.graph.NewInstance(context.Background())
	if err != nil {
		return answer{}, err
	}
	h.made++
	h.instances[h.made] = instance
	return answer{OK: map[string]any{"instance": h.made, "ms": milliseconds(began)}}, nil
}

func (h *host) run(r *request) (answer, error) {
	instance := h.instances[r.Instance]
	if instance == nil {
		return answer{}, fmt.Errorf("there is no instance %d", r.Instance)
	}
	inputs, err := r.tensors()
	if err != nil {
		return answer{}, h.lose(r.Instance, err)
	}
	defer h.watch()()
	began := time.Now()
	outputs, err := instance.Run(context.Background(), inputs)
	ms := milliseconds(began)
	if err != nil {
		return answer{}, h.lose(r.Instance, err)
	}
	told := answer{}
	forms := make([]tensorForm, len(outputs))
	for i, output := range outputs {
		forms[i] = tensorForm{output.DType, output.Shape}
		told.payload = append(told.payload, output.Data)
	}
	told.OK = map[string]any{"outputs": forms, "ms": ms}
	return told, nil
}

func (h *host) step(r *request) (answer, error) {
	instance := h.instances[r.Instance]
	if instance == nil {
		return answer{}, fmt.Errorf("there is no instance %d", r.Instance)
	}
	defer h.watch()()
	began := time.Now()
	if err := instance.Step(context.Background(), r.Index, r.Times); err != nil {
		return answer{}, h.lose(r.Instance, err)
	}
	return answer{OK: map[string]float64{"ms": milliseconds(began)}}, nil
}

// lose forgets an instance after an error.
func (h *host) lose(instance int, err error) error {
	closing := h.instances[instance].Close()
	delete(h.instances, instance)
	return errors.Join(err, closing)
}

// watch ends the process, with RunTimeout as its last answer, unless the function that it returns is called within the
// time limit.
func (h *host) watch() (done func()) {
	// A collection waits for the guest, and everything else waits for the collection.
	percent := debug.SetGCPercent(-1)
	if h.limit == 0 {
		return func() { debug.SetGCPercent(percent) }
	}
	timer := time.AfterFunc(h.limit, func() {
		message := fmt.Sprintf("%s was stopped after its time limit of %g s", h.path, h.limit.Seconds())
		_ = h.send(failure(&wasmgraph.Error{Kind: wasmgraph.RunTimeout, Message: message}))
		os.Exit(exitTimeout)
	})
	return func() {
		if !timer.Stop() {
			select {} // the answer was given
		}
		debug.SetGCPercent(percent)
	}
}

func milliseconds(began time.Time) float64 {
	return float64(time.Since(began)) / float64(time.Millisecond)
}

// cacheFolder is where compiled code is kept, or "" where it cannot be.
func cacheFolder() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) { // to be ignored, as the specification says
		home, err := os.UserHomeDir()
		if err != nil {
			fmt.Fprintln(os.Stderr, "wasmgraph-host: compiled code is not kept:", err)
			return ""
		}
		base = filepath.Join(home, ".cache")
	}
	folder := filepath.Join(base, "wasmgraph", "wazero")
	if err := wasmgraph.PrepareCacheDir(folder); err != nil {
		fmt.Fprintln(os.Stderr, "wasmgraph-host: compiled code is not kept:", err)
		return ""
	}
	return folder
}
