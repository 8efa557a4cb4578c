package wasmgraph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const abiVersion = 1

// Metadata is what a graph says of itself, in its custom section "wasmgraph".
type Metadata struct {
	ABI      int64
	Producer map[string]string // every tool that made the graph, and its version
	Model    ModelInfo
	SIMD     string // "none", "simd128" or "relaxed"
	Threads  bool   // whether it is for several threads
	Dynamic  bool   // whether the shapes of some tensors are known at run time only
	Inputs   []TensorSpec
	Outputs  []TensorSpec
	Sizes    Sizes
	Kernels  []KernelInfo
	Steps    []StepInfo
}

// ModelInfo is the source model: file name, SHA-256 (hex), ai.onnx opset, nodes per operator.
type ModelInfo struct {
	Name      string
	SHA256    string
	Opset     int64
	Operators map[string]int64
}

// TensorSpec is what a graph takes or gives.
type TensorSpec struct {
	Name  string // the ONNX name
	DType string
	Shape []Extent
}

// Extent is the length of an axis.
type Extent struct {
	Size int64  // -1 where a run decides
	Axis string // its name then; the same name is the same extent in all inputs
}

// Sizes are bytes: the file without the weights, the weights, scratch memory, inputs and outputs.
type Sizes struct{ Code, Weights, Arena, IO int64 }

// KernelInfo is a kernel: its symbol and the operators fused in it.
type KernelInfo struct{ Symbol, Description string }

// StepInfo is a call of a kernel (its index), with the ONNX nodes that it computes.
type StepInfo struct {
	Kernel int64
	Nodes  []string
	Flops  int64 // multiplications and additions; 0 where it is no product
	Shares int64 // in how many calls, which may run at the same time
}

// IsFixed says whether every extent is known before a run.
func (s TensorSpec) IsFixed() bool {
	return !slices.ContainsFunc(s.Shape, func(extent Extent) bool { return extent.Size < 0 })
}

func (s TensorSpec) String() string {
	extents := make([]string, len(s.Shape))
	for i, extent := range s.Shape {
		extents[i] = extent.String()
	}
	return fmt.Sprintf("%s: %s[%s]", printable(s.Name), s.DType, strings.Join(extents, ", "))
}

func (e Extent) String() string {
	if e.Size < 0 {
		return printable(e.Axis)
	}
	return strconv.FormatInt(e.Size, 10)
}

// hasAnyRank says whether not even the rank of an output is known before a run.
func (s TensorSpec) hasAnyRank() bool {
	return len(s.Shape) == 1 && s.Shape[0] == Extent{-1, "..."}
}

// fits says whether a tensor of this shape can stand here, as far as this tensor alone tells.
func (s TensorSpec) fits(shape []int64) bool {
	if s.hasAnyRank() {
		return true
	}
	if len(shape) != len(s.Shape) {
		return false
	}
	for i, known := range s.Shape {
		if known.Size >= 0 && known.Size != shape[i] {
			return false
		}
	}
	return true
}

// extents is the shape of a tensor whose every extent is known.
func (s TensorSpec) extents() []int64 {
	shape := make([]int64, len(s.Shape))
	for i, extent := range s.Shape {
		shape[i] = extent.Size
	}
	return shape
}

// parseMetadata reads the section's bytes, which come from files of any origin. Unknown keys are left alone.
func parseMetadata(payload []byte) (Metadata, error) {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return Metadata{}, fail(LoadError, "the graph's metadata is not JSON: %v", err)
	}
	if _, err := decoder.Token(); err != io.EOF || !utf8.Valid(payload) {
		return Metadata{}, fail(LoadError, "the graph's metadata is not JSON in UTF-8")
	}
	p := &parser{}
	top := p.object(document, "metadata")
	abi := p.count(top, "abi")
	if p.err == nil && abi != abiVersion {
		p.err = fail(LoadError, "the graph has ABI version %d, this host knows %d", abi, abiVersion).
			hint("compile the model again with this version")
	}
	model, sizes := p.object(top["model"], "model"), p.object(top["sizes"], "sizes")
	metadata := Metadata{
		ABI:      abi,
		Producer: mapping(p, top, "producer", p.text),
		Model: ModelInfo{p.text(model, "name"), p.sha256(model), p.count(model, "opset"),
			mapping(p, model, "operators", p.count)},
		SIMD:    p.simd(top),
		Threads: p.boolean(top, "threads"),
		Dynamic: top["dynamic"] != nil && p.boolean(top, "dynamic"),
		Inputs:  p.tensors(top, "inputs"),
		Outputs: p.tensors(top, "outputs"),
		Sizes: Sizes{p.count(sizes, "code"), p.count(sizes, "weights"), p.count(sizes, "arena"),
			p.count(sizes, "io")},
		Kernels: items(p, top, "kernels", func(item object) KernelInfo {
			return KernelInfo{p.text(item, "symbol"), p.text(item, "description")}
		}),
		Steps: items(p, top, "steps", p.step),
	}
	for _, step := range metadata.Steps {
		if step.Kernel >= int64(len(metadata.Kernels)) {
			p.refuse("kernel", fmt.Sprintf("an index below %d", len(metadata.Kernels)), step.Kernel)
		}
	}
	return metadata, p.failure()
}

type object = map[string]any

// parser takes JSON values apart and keeps the first thing that is wrong with them.
type parser struct{ err *Error }

func (p *parser) failure() error {
	if p.err == nil {
		return nil
	}
	return p.err
}

func (p *parser) refuse(key, expected string, found any) {
	if p.err != nil {
		return
	}
	shown := fmt.Sprintf("%v", found)
	if text := []rune(shown); len(text) > 60 {
		shown = string(text[:57]) + "..."
	}
	p.err = fail(LoadError, "the graph's metadata: '%s' should be %s, not %s",
		printable(key), expected, printable(shown))
}

func (p *parser) object(value any, key string) object {
	record, ok := value.(object)
	if !ok {
		p.refuse(key, "an object", value)
	}
	return record
}

func (p *parser) list(record object, key string) []any {
	list, ok := record[key].([]any)
	if !ok {
		p.refuse(key, "a list", record[key])
	}
	return list
}

func (p *parser) text(record object, key string) string {
	text, ok := record[key].(string)
	if !ok {
		p.refuse(key, "a string", record[key])
	}
	return text
}

func (p *parser) boolean(record object, key string) bool {
	value, ok := record[key].(bool)
	if !ok {
		p.refuse(key, "true or false", record[key])
	}
	return value
}

func (p *parser) count(record object, key string) int64 {
	number, _ := record[key].(json.Number)
	value, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil || value < 0 {
		p.refuse(key, "a count", record[key])
	}
	return value
}

// countOr is a count that may be missing.
func (p *parser) countOr(record object, key string, missing int64) int64 {
	if _, ok := record[key]; !ok {
		return missing
	}
	return p.count(record, key)
}

func (p *parser) simd(record object) string {
	level := p.text(record, "simd")
	if !slices.Contains([]string{"none", "simd128", "relaxed"}, level) {
		p.refuse("simd", "one of none, simd128, relaxed", level)
	}
	return level
}

func (p *parser) sha256(record object) string {
	digest := p.text(record, "sha256")
	if len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		p.refuse("sha256", "64 hexadecimal digits", digest)
	}
	return digest
}

func (p *parser) step(item object) StepInfo {
	step := StepInfo{
		Kernel: p.count(item, "kernel"),
		Flops:  p.countOr(item, "flops", 0),
		Shares: p.countOr(item, "shares", 1),
	}
	for _, value := range p.list(item, "nodes") {
		node, ok := value.(string)
		if !ok {
			p.refuse("nodes", "a list of strings", item["nodes"])
		}
		step.Nodes = append(step.Nodes, node)
	}
	return step
}

func (p *parser) tensors(record object, key string) []TensorSpec {
	names := map[string]bool{}
	return items(p, record, key, func(item object) TensorSpec {
		tensor := p.tensor(item)
		if names[tensor.Name] {
			p.refuse(key, "tensors of different names", tensor.Name)
		}
		names[tensor.Name] = true
		return tensor
	})
}

func (p *parser) tensor(item object) TensorSpec {
	spec := TensorSpec{Name: p.text(item, "name"), DType: p.text(item, "dtype")}
	if _, known := dtypeNBytes[spec.DType]; !known {
		p.refuse("dtype", "the name of one", spec.DType)
	}
	var fixed []int64
	for _, value := range p.list(item, "shape") {
		if axis, open := value.(string); open {
			spec.Shape = append(spec.Shape, Extent{-1, axis})
			continue
		}
		size := p.count(object{"shape": value}, "shape")
		spec.Shape = append(spec.Shape, Extent{Size: size})
		fixed = append(fixed, size)
	}
	if _, possible := sizeOf(spec.DType, fixed); !possible || len(spec.Shape) > maxRank {
		p.refuse("shape", fmt.Sprintf("at most %d bytes on %d axes", maxTensorNBytes, maxRank),
			item["shape"])
	}
	return spec
}

func items[T any](p *parser, record object, key string, convert func(object) T) []T {
	var converted []T
	for _, item := range p.list(record, key) {
		converted = append(converted, convert(p.object(item, key)))
	}
	return converted
}

func mapping[T any](p *parser, record object, key string, convert func(object, string) T) map[string]T {
	converted := map[string]T{}
	values := p.object(record[key], key)
	for name := range values {
		converted[name] = convert(values, name)
	}
	return converted
}
