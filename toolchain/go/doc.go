// Package wasmgraph runs graphs, the .wasm files that `wasmgraph compile` writes, under wazero: in this process, without
// cgo, and in a sandbox that has no files, clock, network, environment or randomness.
//
//	graph, err := wasmgraph.Load(ctx, "digits.wasm", wasmgraph.Options{MaxMemory: 64 << 20})
//	if err != nil {
//		return err
//	}
//	defer graph.Close()
//	image := wasmgraph.TensorOf(pixels, 1, 1, 8, 8) // pixels is a []float32
//	outputs, err := graph.Run(ctx, map[string]wasmgraph.Tensor{"image": image})
//	if err != nil {
//		return err
//	}
//	probabilities, err := wasmgraph.Values[float32](outputs["probabilities"])
//
// A graph from elsewhere may lie: everything that it returns is checked before it is touched, and what is wrong is an
// Error whose Kind is that of the Python package.
//
// Graphs for several threads and for relaxed SIMD need another host.
package wasmgraph
