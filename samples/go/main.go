// Command classify runs a graph on one NPY file and prints the classes that it finds most likely.
//
//	go run . GRAPH.wasm IN.npy --labels labels.txt --top 3
//
// It leaves with the exit codes of the wasmgraph command.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"wasmgraph"
)

// exitCodes are what the process leaves with, by what went wrong.
var exitCodes = map[wasmgraph.Kind]int{
	wasmgraph.LoadError: 6, wasmgraph.InputError: 7, wasmgraph.MemoryLimitExceeded: 8,
	wasmgraph.RunTimeout: 9, wasmgraph.InferenceError: 10,
}

// task is what the command line asks for.
type task struct {
	graph, input, labels, output string
	top                          int
	limits                       wasmgraph.Options
}

func main() {
	asked := parse(os.Args[1:])
	if err := classify(asked, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		if code, known := exitCodes[wasmgraph.KindOf(err)]; known {
			os.Exit(code)
		}
		os.Exit(1)
	}
}

func parse(arguments []string) (asked task) {
	flags := flag.NewFlagSet("classify", flag.ExitOnError) // which leaves with 2
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: classify GRAPH.wasm IN.npy [flags]")
		flags.PrintDefaults()
	}
	flags.StringVar(&asked.labels, "labels", "", "a `file` with the name of a class on each line")
	flags.IntVar(&asked.top, "top", 3, "how many classes to print")
	flags.StringVar(&asked.output, "output", "", "a `file` for the output, as NPY")
	flags.Uint64Var(&asked.limits.MaxMemory, "max-memory", 1<<30, "`bytes` of memory that the graph may have")
	flags.DurationVar(&asked.limits.Timeout, "timeout", 0, "how long it may run, such as 10s")
	flags.StringVar(&asked.limits.CacheDir, "cache", "", "a `folder` that keeps compiled code for the next time")
	var files []string
	for len(arguments) > 0 { // flags may stand behind the files
		_ = flags.Parse(arguments)
		if arguments = flags.Args(); len(arguments) > 0 {
			files, arguments = append(files, arguments[0]), arguments[1:]
		}
	}
	if len(files) != 2 {
		flags.Usage()
		os.Exit(2)
	}
	asked.graph, asked.input = files[0], files[1]
	return asked
}

func classify(asked task, out io.Writer) (err error) {
	ctx := context.Background()
	graph, err := wasmgraph.Load(ctx, asked.graph, asked.limits)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, graph.Close()) }()
	if err := describe(graph, filepath.Base(asked.graph), out); err != nil {
		return err
	}
	inputs, outputs := graph.Inputs(), graph.Outputs()
	if len(inputs) != 1 || len(outputs) == 0 {
		return &wasmgraph.Error{Kind: wasmgraph.InputError, Message: "this sample is for graphs of one input"}
	}
	image, err := readTensor(asked.input)
	if err != nil {
		return err
	}
	began := time.Now()
	results, err := graph.Run(ctx, map[string]wasmgraph.Tensor{inputs[0].Name: image})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "run %v\n", time.Since(began).Round(time.Microsecond))
	result := results[outputs[0].Name]
	if asked.output != "" {
		if err := writeTensor(asked.output, result); err != nil {
			return err
		}
	}
	return printTop(asked, result, out)
}

// describe prints what the graph says of itself, without running it.
func describe(graph *wasmgraph.Graph, name string, out io.Writer) error {
	metadata := graph.Metadata()
	fmt.Fprintf(out, "%s: %q, opset %d, %s, %d bytes of weights\n",
		name, metadata.Model.Name, metadata.Model.Opset, metadata.SIMD, metadata.Sizes.Weights)
	for _, spec := range graph.Inputs() {
		fmt.Fprintln(out, "input ", spec)
	}
	for _, spec := range graph.Outputs() {
		fmt.Fprintln(out, "output", spec)
	}
	_, err := fmt.Fprintln(out)
	return err
}

// printTop prints the classes with the largest values of the first output.
func printTop(asked task, result wasmgraph.Tensor, out io.Writer) error {
	values, err := wasmgraph.Values[float32](result)
	if err != nil {
		return err
	}
	labels, err := readLabels(asked.labels, len(values))
	if err != nil {
		return err
	}
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case values[a] > values[b]:
			return -1
		case values[a] < values[b]:
			return 1
		}
		return 0
	})
	for _, class := range order[:min(max(asked.top, 0), len(order))] {
		if _, err := fmt.Fprintf(out, "%-12s %.4f\n", labels[class], values[class]); err != nil {
			return err
		}
	}
	return nil
}

// readLabels are the classes' names: their numbers where there is no file.
func readLabels(path string, classes int) ([]string, error) {
	labels := make([]string, classes)
	for i := range labels {
		labels[i] = fmt.Sprint(i)
	}
	if path == "" {
		return labels, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != classes {
		return nil, &wasmgraph.Error{
			Kind:    wasmgraph.InputError,
			Message: fmt.Sprintf("%s has %d labels, the graph %d classes", path, len(lines), classes),
		}
	}
	return lines, nil
}

func readTensor(path string) (wasmgraph.Tensor, error) {
	file, err := os.Open(path)
	if err != nil {
		return wasmgraph.Tensor{}, &wasmgraph.Error{Kind: wasmgraph.InputError, Message: err.Error()}
	}
	defer file.Close()
	return wasmgraph.ReadNPY(bufio.NewReader(file))
}

func writeTensor(path string, tensor wasmgraph.Tensor) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(wasmgraph.WriteNPY(file, tensor), file.Close())
}
