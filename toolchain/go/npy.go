package wasmgraph

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// npyTypes has numpy's codes of the dtypes that numpy itself has. Bytes have no order.
var npyTypes = map[string]string{
	"bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4",
	"int64": "<i8", "uint64": "<u8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
}

const (
	npyMagic           = "\x93NUMPY"
	npyAlignment       = 64
	maxNPYHeaderNBytes = 1 << 16
)

var npyHeader = regexp.MustCompile(
	`^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\}\s*$`)

// ReadNPY reads a tensor from a stream in numpy's format, version 1 to 3, little-endian and in C order.
//
// It returns an InputError where it is something else. The stream may go on behind the tensor.
func ReadNPY(stream io.Reader) (Tensor, error) {
	header, err := readNPYHeader(stream)
	if err != nil {
		return Tensor{}, err
	}
	fields := npyHeader.FindStringSubmatch(header)
	if fields == nil {
		return Tensor{}, fail(InputError, "not a header of NPY: %s", printable(header))
	}
	tensor := Tensor{DType: dtypeOfCode(fields[1])}
	if tensor.DType == "" || fields[2] == "True" {
		return Tensor{}, fail(InputError, "NPY of %s should be little-endian, of numbers and in C order: %s",
			printable(fields[1]), header).
			hint("numpy.save(file, numpy.ascontiguousarray(array.astype('float32')))")
	}
	for _, extent := range strings.FieldsFunc(fields[3], func(c rune) bool { return c == ',' || c == ' ' }) {
		size, err := strconv.ParseInt(extent, 10, 64)
		if err != nil {
			return Tensor{}, fail(InputError, "not a shape: (%s)", fields[3])
		}
		tensor.Shape = append(tensor.Shape, size)
	}
	nbytes, err := tensor.NBytes()
	if err != nil {
		return Tensor{}, err
	}
	// Grows with what is there: the header may promise gigabytes.
	var data bytes.Buffer
	if _, err := io.CopyN(&data, stream, nbytes); err != nil {
		return Tensor{}, fail(InputError, "the NPY data end after %d of %d bytes", data.Len(), nbytes)
	}
	tensor.Data = data.Bytes()
	return tensor, nil
}

func readNPYHeader(stream io.Reader) (string, error) {
	start := make([]byte, len(npyMagic)+2)
	if _, err := io.ReadFull(stream, start); err != nil || string(start[:len(npyMagic)]) != npyMagic {
		return "", fail(InputError, "not in NPY format: it does not begin with \\x93NUMPY")
	}
	field := make([]byte, 4)
	switch version := start[len(npyMagic)]; version {
	case 1:
		field = field[:2]
	case 2, 3:
	default:
		return "", fail(InputError, "NPY of version %d is not known", version)
	}
	if _, err := io.ReadFull(stream, field); err != nil {
		return "", fail(InputError, "the NPY header ends early")
	}
	length := binary.LittleEndian.Uint32(append(field, 0, 0))
	if length > maxNPYHeaderNBytes {
		return "", fail(InputError, "an NPY header of %d bytes", length)
	}
	header := make([]byte, length)
	if _, err := io.ReadFull(stream, header); err != nil {
		return "", fail(InputError, "the NPY header ends early")
	}
	return string(header), nil
}

// WriteNPY writes a tensor to a stream in numpy's format.
//
// It returns an InputError where the tensor's dtype is none of numpy's.
func WriteNPY(stream io.Writer, tensor Tensor) error {
	if err := tensor.check(); err != nil {
		return err
	}
	code, known := npyTypes[tensor.DType]
	if !known {
		return fail(InputError, "numpy has no %s", tensor.DType)
	}
	shape := strings.Trim(formatShape(tensor.Shape), "[]")
	if len(tensor.Shape) == 1 {
		shape += ","
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", code, shape)
	start := len(npyMagic) + 4
	unpadded := start + len(header) + 1
	header += strings.Repeat(" ", (npyAlignment-unpadded%npyAlignment)%npyAlignment) + "\n"
	whole := append([]byte(npyMagic), 1, 0)
	whole = binary.LittleEndian.AppendUint16(whole, uint16(len(header)))
	whole = append(append(whole, header...), tensor.Data...)
	_, err := stream.Write(whole)
	return err
}

func dtypeOfCode(code string) string {
	for dtype, known := range npyTypes {
		if known == code {
			return dtype
		}
	}
	return ""
}
