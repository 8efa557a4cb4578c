package wasmgraph

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// The graphs of these tests are made by the Python tests, which name their folder.

func digits(t *testing.T) string {
	t.Helper()
	path := os.Getenv("WASMGRAPH_DIGITS")
	if path == "" {
		t.Skip("WASMGRAPH_DIGITS names no graph: run the tests of tests/hosts")
	}
	return path
}

func graphs(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("WASMGRAPH_GRAPHS")
	if folder == "" {
		t.Skip("WASMGRAPH_GRAPHS names no folder: run the tests of tests/hosts")
	}
	return folder
}

type example struct {
	Name, File, Kind string
	Memory           uint64
	Seconds          float64
	Inputs, Outputs  []exampleTensor
}

type exampleTensor struct {
	Name, DType, Data string
	Shape             []int64
}

func examples(t *testing.T, folder string) (found []example) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func tensors(t *testing.T, listed []exampleTensor) map[string]Tensor {
	t.Helper()
	found := map[string]Tensor{}
	for _, tensor := range listed {
		data, err := base64.StdEncoding.DecodeString(tensor.Data)
		if err != nil {
			t.Fatal(err)
		}
		found[tensor.Name] = Tensor{tensor.DType, tensor.Shape, data}
	}
	return found
}

func same(a, b map[string]Tensor) bool {
	for name, tensor := range a {
		other, known := b[name]
		if !known || tensor.DType != other.DType || !slices.Equal(tensor.Shape, other.Shape) ||
			!slices.Equal(tensor.Data, other.Data) {
			return false
		}
	}
	return len(a) == len(b)
}

func readNPY(t *testing.T, name string) Tensor {
	t.Helper()
	file, err := os.Open(filepath.Join(graphs(t), name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tensor, err := ReadNPY(file)
	if err != nil {
		t.Fatal(err)
	}
	return tensor
}

func load(t *testing.T, path string, options Options) *Graph {
	t.Helper()
	graph, err := Load(context.Background(), path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := graph.Close(); err != nil {
			t.Error(err)
		}
	})
	return graph
}

func TestHostileGraphsEndInTheirErrors(t *testing.T) {
	folder := graphs(t)
	for _, graph := range examples(t, folder) {
		t.Run(graph.Name, func(t *testing.T) {
			options := Options{
				MaxMemory: graph.Memory,
				Timeout:   time.Duration(graph.Seconds * float64(time.Second)),
			}
			outputs, err := runOnce(filepath.Join(folder, graph.File), options, tensors(t, graph.Inputs))
			if KindOf(err) != Kind(graph.Kind) {
				t.Fatalf("%q instead of %q: %v", KindOf(err), graph.Kind, err)
			}
			if err != nil && printable(err.Error()) != err.Error() {
				t.Errorf("a terminal would obey %q", err)
			}
			if expected := tensors(t, graph.Outputs); err == nil && !same(outputs, expected) {
				t.Errorf("%v instead of %v", outputs, expected)
			}
		})
	}
}

func runOnce(path string, options Options, inputs map[string]Tensor) (outputs map[string]Tensor, err error) {
	ctx := context.Background()
	graph, err := Load(ctx, path, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, graph.Close()) }()
	return graph.Run(ctx, inputs)
}

func TestGoroutinesShareAGraph(t *testing.T) {
	graph := load(t, digits(t), Options{MaxMemory: 64 << 20})
	inputs := map[string]Tensor{"image": readNPY(t, "image.npy")}
	expected := map[string]Tensor{"probabilities": readNPY(t, "probabilities.npy")}
	var group sync.WaitGroup
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 5 {
				outputs, err := graph.Run(context.Background(), inputs)
				if err != nil || !same(outputs, expected) {
					t.Errorf("%v, %v", outputs, err)
				}
			}
		}()
	}
	group.Wait()
}

func TestCloseWaitsForRuns(t *testing.T) {
	graph := load(t, digits(t), Options{})
	inputs := map[string]Tensor{"image": readNPY(t, "image.npy")}
	begun, done := make(chan bool), make(chan error)
	go func() {
		first := true
		for {
			_, err := graph.Run(context.Background(), inputs)
			if first {
				first = false
				begun <- true
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	<-begun
	if err := graph.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("%v instead of %v", err, ErrClosed)
	}
	if _, err := graph.NewInstance(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("%v instead of %v", err, ErrClosed)
	}
}

func TestAContextEndsARun(t *testing.T) {
	folder := graphs(t)
	options := Options{Timeout: time.Hour}
	graph := load(t, filepath.Join(folder, "loops.wasm"), options)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := graph.Run(ctx, map[string]Tensor{"x": TensorOf([]float32{1, 2, 3, 4})})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v instead of %v", err, context.Canceled)
	}
}

func TestAStepRunsAlone(t *testing.T) {
	graph := load(t, digits(t), Options{})
	instance, err := graph.NewInstance(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := instance.Step(context.Background(), 0, 3); err != nil {
		t.Error(err)
	}
	if err := instance.Step(context.Background(), 1000, 1); KindOf(err) != InferenceError {
		t.Error(err)
	}
}

func TestInputsThatDoNotFitAreNamed(t *testing.T) {
	graph := load(t, digits(t), Options{})
	fits := readNPY(t, "image.npy")
	for _, inputs := range []map[string]Tensor{
		{},
		{"picture": fits},
		{"image": fits, "other": fits},
		{"image": {"float64", []int64{1, 1, 8, 8}, make([]byte, 512)}},
		{"image": {"float32", []int64{1, 8, 8}, fits.Data}},
		{"image": {"float32", []int64{1, 1, 8, 8}, fits.Data[4:]}},
	} {
		if _, err := graph.Run(context.Background(), inputs); KindOf(err) != InputError {
			t.Errorf("%v: %v", inputs, err)
		}
	}
	// None of them was the graph's fault: it goes on.
	if _, err := graph.Run(context.Background(), map[string]Tensor{"image": fits}); err != nil {
		t.Error(err)
	}
}

func TestTheCacheIsUsedAndSealed(t *testing.T) {
	options := Options{CacheDir: filepath.Join(t.TempDir(), "cache")}
	load(t, digits(t), options)
	before := codeFiles(t, options.CacheDir)
	if len(before) != 1 {
		t.Fatalf("%d files of code", len(before))
	}
	load(t, digits(t), options)
	for path, info := range codeFiles(t, options.CacheDir) {
		if !before[path].ModTime().Equal(info.ModTime()) {
			t.Errorf("%s was written again", path)
		}
	}
	timed := options
	timed.Timeout = time.Hour
	load(t, digits(t), timed)
	if after := codeFiles(t, options.CacheDir); len(after) != 2 {
		t.Errorf("%d files of code", len(after))
	}
}

func TestDamagedCacheEntriesAreCompiledAgain(t *testing.T) {
	options := Options{CacheDir: filepath.Join(t.TempDir(), "cache")}
	for _, damage := range []func(path string, size int64) error{
		func(path string, size int64) error { return flip(path, size/2) },
		func(path string, size int64) error { return flip(path, 40) }, // where a function begins
		func(path string, size int64) error { return os.Truncate(path, size/2) },
		func(path string, _ int64) error { return os.WriteFile(path, []byte("WAZEVO"), 0o600) },
	} {
		load(t, digits(t), options)
		for path, info := range codeFiles(t, options.CacheDir) {
			if err := damage(path, info.Size()); err != nil {
				t.Fatal(err)
			}
		}
		graph := load(t, digits(t), options)
		outputs, err := graph.Run(context.Background(), map[string]Tensor{"image": readNPY(t, "image.npy")})
		if err != nil || !same(outputs, map[string]Tensor{"probabilities": readNPY(t, "probabilities.npy")}) {
			t.Errorf("%v, %v", outputs, err)
		}
	}
}

func flip(path string, at int64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[at] ^= 0xff
	return os.WriteFile(path, data, 0o600)
}

// codeFiles are the files with code in a cache.
func codeFiles(t *testing.T, folder string) map[string]os.FileInfo {
	t.Helper()
	found := map[string]os.FileInfo{}
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == sealName {
			return err
		}
		found[path], err = entry.Info()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTheCacheForgetsWhatIsUnusedLongest(t *testing.T) {
	folder := t.TempDir()
	for i, name := range []string{"new", "old", "older"} {
		entry := filepath.Join(folder, name)
		used := time.Now().Add(time.Duration(-i) * time.Hour)
		err := errors.Join(os.Mkdir(entry, 0o700), os.WriteFile(filepath.Join(entry, "code"), make([]byte, 60_000), 0o600),
			os.Chtimes(entry, used, used))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(folder, 150_000); err != nil {
		t.Fatal(err)
	}
	if left := codeFiles(t, folder); len(left) != 2 || left[filepath.Join(folder, "older", "code")] != nil {
		t.Errorf("left: %v", left)
	}
}

func TestACacheThatCannotBeIsSaid(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(context.Background(), digits(t), Options{CacheDir: folder}); KindOf(err) != LoadError {
		t.Error(err)
	}
}

func ExampleTensorOf() {
	tensor := TensorOf([]float32{1, 2, 3, 4, 5, 6}, 2, 3)
	values, err := Values[float32](tensor)
	fmt.Println(tensor.DType, tensor.Shape, values, err)
	// Output: float32 [2 3] [1 2 3 4 5 6] <nil>
}
