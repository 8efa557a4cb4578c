package wasmgraph

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

const (
	metadataSection = "wasmgraph"
	wasiModule      = "wasi_snapshot_preview1"
	pageNBytes      = 65536

	// maxTableElements is how many functions a graph's tables may hold: memory that no limit of wazero's covers.
	maxTableElements = 1_000_000
)

// Functions that every graph exports, and those that it may.
var (
	abiFunctions = []string{
		"_start", "wg_abi", "wg_input", "wg_run", "wg_output", "wg_output_shape", "wg_alloc", "wg_free",
		"wg_error", "wg_error_len",
	}
	optionalFunctions = []string{"_initialize", "wg_step"}
)

// kindNames are what a module imports and exports, by their numbers in the binary format.
var kindNames = []string{"func", "table", "memory", "global", "tag"}

// A section's number in the binary format; those that are not looked into have no name here.
const (
	customSection = 0
	importSection = 2
	tableSection  = 4
	memorySection = 5
	exportSection = 7
)

// sectionOrder has the numbers of all sections in the order in which a module has them.
var sectionOrder = []byte{1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11}

// moduleFile is what a module shows to the outside.
type moduleFile struct {
	imports  []importItem
	exports  map[string]string // kind by name
	memories []limits
	tables   []table
	metadata []byte // the custom section's contents, nil where there is none

	tablesStart, tablesEnd int // where the section of tables lies in the file
}

type table struct {
	kind   []byte // its elements' type, as the file has it
	limits limits
}

type importItem struct{ module, name, kind string }

type limits struct {
	minimum, maximum uint64
	bounded          bool // whether there is a maximum
	shared, is64Bit  bool
}

// readGraph finds whether bytes of any origin are a graph that this host can run, before an engine sees them.
// Function bodies are the engine's business.
func readGraph(data []byte) (*moduleFile, Metadata, error) {
	file, err := parseModule(data)
	if err != nil {
		return nil, Metadata{}, err
	}
	if file.metadata == nil {
		return nil, Metadata{}, fail(LoadError, "a wasm module, but no graph: it has no custom section '%s'",
			metadataSection)
	}
	metadata, err := parseMetadata(file.metadata)
	if err != nil {
		return nil, Metadata{}, err
	}
	if metadata.Threads {
		return nil, Metadata{}, fail(LoadError, "the graph was compiled for several threads, this host has one").
			hint("compile the model without --threads")
	}
	if metadata.SIMD == "relaxed" {
		return nil, Metadata{}, fail(LoadError, "the graph needs relaxed SIMD, which wazero lacks").
			hint("compile the model with --simd simd128")
	}
	for _, check := range []func() error{file.checkImports, file.checkExports, file.checkMemory} {
		if err := check(); err != nil {
			return nil, Metadata{}, err
		}
	}
	return file, metadata, nil
}

func (f *moduleFile) checkImports() error {
	for _, item := range f.imports {
		if item.module != wasiModule || item.kind != "func" {
			return fail(LoadError, "the graph imports the %s '%s' of '%s'; only functions of '%s' are allowed",
				item.kind, printable(item.name), printable(item.module), wasiModule)
		}
	}
	return nil
}

func (f *moduleFile) checkExports() error {
	expected := map[string]string{"memory": "memory"}
	for _, name := range abiFunctions {
		expected[name] = "func"
	}
	for _, name := range optionalFunctions {
		if f.exports[name] != "" {
			expected[name] = "func"
		}
	}
	for name, kind := range expected {
		found := f.exports[name]
		if found == "" {
			return fail(LoadError, "the graph should export the %s '%s', it exports nothing", kind, name)
		}
		if found != kind {
			return fail(LoadError, "the graph should export the %s '%s', it exports a %s", kind, name, found)
		}
	}
	return nil
}

func (f *moduleFile) checkMemory() error {
	if len(f.memories) != 1 || f.memories[0].shared || f.memories[0].is64Bit {
		return fail(LoadError, "the graph's memory should be its own, one, 32-bit and not shared")
	}
	for _, table := range f.tables {
		if table.limits.minimum > maxTableElements {
			return fail(LoadError, "the graph has a table of more than %d elements", maxTableElements)
		}
	}
	return nil
}

// withBoundTables is the module with a maximum for every table. No limit of wazero's covers them, and Go's runtime
// cannot be told to do without memory that a guest asks for.
func (f *moduleFile) withBoundTables(data []byte) []byte {
	section := binary.AppendUvarint(nil, uint64(len(f.tables)))
	changed := false
	for _, table := range f.tables {
		maximum := uint64(maxTableElements)
		if table.limits.bounded {
			maximum = min(maximum, table.limits.maximum)
		}
		changed = changed || !table.limits.bounded || maximum < table.limits.maximum
		section = append(append(section, table.kind...), 1)
		section = binary.AppendUvarint(binary.AppendUvarint(section, table.limits.minimum), maximum)
	}
	if !changed {
		return data
	}
	start := binary.AppendUvarint([]byte{tableSection}, uint64(len(section)))
	return slices.Concat(data[:f.tablesStart], start, section, data[f.tablesEnd:])
}

// parseModule reads the outside of a WebAssembly binary.
// The format: https://webassembly.github.io/spec/core/binary/modules.html
func parseModule(data []byte) (*moduleFile, error) {
	if len(data) < 8 || string(data[:4]) != "\x00asm" {
		return nil, fail(LoadError, "not a wasm file: it does not begin with '\\0asm'").
			hint("a graph is the .wasm that `wasmgraph compile` writes")
	}
	if string(data[4:8]) != "\x01\x00\x00\x00" {
		return nil, fail(LoadError, "not a wasm module of version 1 (found %x)", data[4:8])
	}
	file := &moduleFile{exports: map[string]string{}}
	r := &reader{data: data, position: 8, end: len(data)}
	passed := -1
	for r.err == nil && r.position < r.end {
		start := r.position
		number := r.byte()
		inner := r.within(int(r.number(32)))
		if number != customSection {
			place := slices.Index(sectionOrder, number)
			if place <= passed {
				r.refuse("a section is unknown or out of order")
			}
			passed = place
		}
		if number == tableSection {
			file.tablesStart, file.tablesEnd = start, r.position
		}
		file.readSection(number, inner)
		r.adopt(inner)
	}
	if r.err != nil {
		return nil, r.err
	}
	return file, nil
}

func (f *moduleFile) readSection(number byte, r *reader) {
	read := func(one func(r *reader)) {
		for count := r.number(32); count > 0 && r.err == nil; count-- {
			one(r)
		}
		if r.position != r.end {
			r.refuse("bytes after a section's last entry")
		}
	}
	switch number {
	case customSection:
		f.readCustom(r)
	case importSection:
		read(f.readImport)
	case tableSection:
		read(f.readTable)
	case memorySection:
		read(func(r *reader) { f.memories = append(f.memories, r.limits()) })
	case exportSection:
		read(f.readExport)
	}
}

func (f *moduleFile) readCustom(r *reader) {
	if r.name() != metadataSection || r.err != nil {
		return
	}
	if f.metadata != nil {
		r.refuse("two custom sections '" + metadataSection + "'")
	}
	f.metadata = append([]byte{}, r.data[r.position:r.end]...)
}

func (f *moduleFile) readImport(r *reader) {
	item := importItem{r.name(), r.name(), r.kind()}
	f.imports = append(f.imports, item)
	switch item.kind {
	case "func":
		r.number(32)
	case "table":
		f.readTable(r)
	case "memory":
		f.memories = append(f.memories, r.limits())
	case "global":
		r.valueType()
		r.byte()
	case "tag":
		r.byte()
		r.number(32)
	}
}

func (f *moduleFile) readTable(r *reader) {
	start := r.position
	r.valueType()
	f.tables = append(f.tables, table{r.data[start:r.position], r.limits()})
}

func (f *moduleFile) readExport(r *reader) {
	name, kind := r.name(), r.kind()
	r.number(32)
	if f.exports[name] != "" {
		r.refuse("'" + printable(name) + "' is exported twice")
	}
	f.exports[name] = kind
}

// reader is a place in the bytes and the end of what may be read from there. After the first error it
// reads zeros.
type reader struct {
	data          []byte
	position, end int
	err           error
}

func (r *reader) refuse(reason string) {
	if r.err == nil {
		r.err = fail(LoadError, "not a valid wasm file: %s (at byte %d)", reason, r.position)
	}
}

func (r *reader) byte() byte {
	if r.err != nil || r.position >= r.end {
		r.refuse("it ends early")
		return 0
	}
	r.position++
	return r.data[r.position-1]
}

// number reads an unsigned LEB128 number of at most so many bits.
func (r *reader) number(bits int) uint64 {
	var value uint64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		part := uint64(b & 0x7f)
		if shift >= bits || part<<shift>>shift != part || bits < 64 && (value|part<<shift)>>bits != 0 {
			r.refuse("a number has too many bits")
			return 0
		}
		value |= part << shift
		if b < 0x80 {
			return value
		}
	}
}

func (r *reader) take(nbytes int) []byte {
	if r.err != nil || nbytes < 0 || nbytes > r.end-r.position {
		r.refuse("it ends early")
		return nil
	}
	r.position += nbytes
	return r.data[r.position-nbytes : r.position]
}

// within is a reader of the next bytes, which this one skips.
func (r *reader) within(nbytes int) *reader {
	r.take(nbytes)
	start := r.position - nbytes
	if r.err != nil {
		start = r.position
	}
	return &reader{data: r.data, position: start, end: r.position, err: r.err}
}

func (r *reader) adopt(inner *reader) {
	if r.err == nil {
		r.err = inner.err
	}
}

func (r *reader) name() string {
	text := r.take(int(r.number(32)))
	if !utf8.Valid(text) {
		r.refuse("a name is not UTF-8")
	}
	return string(text)
}

func (r *reader) kind() string {
	code := int(r.byte())
	if code >= len(kindNames) {
		r.refuse("an import or export of an unknown kind")
		return ""
	}
	return kindNames[code]
}

func (r *reader) limits() limits {
	flags := r.byte()
	if flags > 7 {
		r.refuse("unknown limits")
	}
	bits := 32
	if flags&4 != 0 {
		bits = 64
	}
	found := limits{minimum: r.number(bits), bounded: flags&1 != 0, shared: flags&2 != 0, is64Bit: flags&4 != 0}
	if found.bounded {
		found.maximum = r.number(bits)
	}
	return found
}

func (r *reader) valueType() {
	// (ref null? heap type) is the only type of more than one byte.
	if first := r.byte(); first == 0x63 || first == 0x64 {
		r.number(33)
	}
}
