package wasmgraph

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestNPYComesBackAsItWas(t *testing.T) {
	for _, tensor := range []Tensor{
		TensorOf([]float32{1, -2.5, float32(math.Inf(1))}),
		TensorOf([]int64{1, 2, 3, 4, 5, 6}, 1, 2, 3),
		TensorOf([]bool{true}, 1, 1),
		TensorOf([]uint8{}, 0, 7),
		{DType: "float16", Shape: nil, Data: []byte{0, 60}},
	} {
		var file bytes.Buffer
		if err := WriteNPY(&file, tensor); err != nil {
			t.Fatal(err)
		}
		if header := file.Len() - len(tensor.Data); header%npyAlignment != 0 {
			t.Errorf("a header of %d bytes", header)
		}
		found, err := ReadNPY(&file)
		if err != nil {
			t.Fatal(err)
		}
		if !same(map[string]Tensor{"": tensor}, map[string]Tensor{"": found}) {
			t.Errorf("%v instead of %v", found, tensor)
		}
	}
}

func TestOtherFilesAreInputErrors(t *testing.T) {
	start := "\x93NUMPY\x01\x00"
	for _, file := range []string{
		"", "PK\x03\x04", start, start + "\x10\x00{'descr'", "\x93NUMPY\x09\x00\x00\x00",
		"\x93NUMPY\x02\x00\xff\xff\xff\xff",
		header("<f4", "False", "-1,"), header("<f4", "False", "9223372036854775807, 8"),
		header("<f4", "False", "99999999999999999999"), header(">f4", "False", "1,"), header("<f4", "True", "2, 2"),
		header("|O", "False", "1,"), header("<f4", "False", "536870911"),
	} {
		if tensor, err := ReadNPY(strings.NewReader(file)); KindOf(err) != InputError {
			t.Errorf("%q: %v, %v", file, tensor, err)
		}
	}
}

func header(code, fortran, shape string) string {
	text := "{'descr': '" + code + "', 'fortran_order': " + fortran + ", 'shape': (" + shape + "), }\n"
	return "\x93NUMPY\x01\x00" + string([]byte{byte(len(text)), 0}) + text
}

func TestSizesThatCannotBeAreNone(t *testing.T) {
	for _, shape := range [][]int64{
		{1 << 31}, {-1}, {1 << 62, 1 << 62}, {0, 1 << 62, 1 << 62}, make([]int64, 33), {math.MinInt64},
	} {
		if nbytes, ok := sizeOf("uint8", shape); ok {
			t.Errorf("%v has %d bytes", shape, nbytes)
		}
	}
	if nbytes, ok := sizeOf("float64", []int64{3, 0, 5}); nbytes != 0 || !ok {
		t.Errorf("%d, %t", nbytes, ok)
	}
}

// minimal is the outside of a module with a table that has no maximum, between two custom sections.
const minimal = "\x00asm\x01\x00\x00\x00" + "\x00\x02\x01a" + "\x04\x04\x01\x70\x00\x05" + "\x00\x02\x01b"

func TestTablesGetAMaximum(t *testing.T) {
	file, err := parseModule([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	bound := file.withBoundTables([]byte(minimal))
	if expected := strings.Replace(minimal, "\x04\x04\x01\x70\x00\x05", "\x04\x07\x01\x70\x01\x05\xc0\x84\x3d", 1); string(bound) != expected {
		t.Errorf("%q instead of %q", bound, expected)
	}
	again, err := parseModule(bound)
	if err != nil {
		t.Fatal(err)
	}
	if string(again.withBoundTables(bound)) != string(bound) {
		t.Error("a table with a maximum changes")
	}
}

func FuzzAnyBytesAreAGraphOrALoadError(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\x0a\x09wasmgraph"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\xff\xff\xff\xff\x7f"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x02\x05\x01\x01a\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if file, err := parseModule(data); err == nil {
			file.withBoundTables(data)
		}
		if _, _, err := readGraph(data); err != nil && KindOf(err) != LoadError {
			t.Error(err)
		}
		if _, err := parseMetadata(data); err != nil && KindOf(err) != LoadError {
			t.Error(err)
		}
	})
}
