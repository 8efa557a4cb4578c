package wasmgraph

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// maxTensorNBytes is what an object in a 32-bit memory may have, for Rust and C alike.
const maxTensorNBytes = 1<<31 - 1

// maxRank is how many axes a tensor can have.
const maxRank = 32

// dtypeNBytes has the bytes per element of every dtype that a graph can take or give. Elements below a
// byte take the low bits of one each.
var dtypeNBytes = map[string]int64{
	"bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
	"uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
	"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
	"float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1,
	"float8_e8m0fnu": 1, "float4_e2m1fn": 1,
	"int4": 1, "uint4": 1, "int2": 1, "uint2": 1,
}

// Tensor is a dense array in C order.
type Tensor struct {
	DType string // a numpy name, such as "float32"
	Shape []int64
	Data  []byte // little-endian
}

// Number is the type of an element that Go has.
type Number interface {
	bool | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64
}

// TensorOf makes a tensor of a slice. Without a shape it has one axis.
//
// It panics where the shape does not have as many elements as the slice.
func TensorOf[T Number](values []T, shape ...int64) Tensor {
	if len(shape) == 0 {
		shape = []int64{int64(len(values))}
	}
	var data bytes.Buffer
	data.Grow(len(values) * 8)
	// Slices of fixed-size numbers can always be written to a buffer.
	if err := binary.Write(&data, binary.LittleEndian, values); err != nil {
		panic(err)
	}
	tensor := Tensor{DType: dtypeOf[T](), Shape: shape, Data: data.Bytes()}
	if err := tensor.check(); err != nil {
		panic(err)
	}
	return tensor
}

// Values returns a copy of a tensor's elements.
//
// It returns an InputError where the tensor has another dtype than T.
func Values[T Number](tensor Tensor) ([]T, error) {
	if tensor.DType != dtypeOf[T]() {
		return nil, fail(InputError, "the tensor is %s, not %s", tensor.DType, dtypeOf[T]())
	}
	if err := tensor.check(); err != nil {
		return nil, err
	}
	values := make([]T, int64(len(tensor.Data))/dtypeNBytes[tensor.DType])
	if _, err := binary.Decode(tensor.Data, binary.LittleEndian, values); err != nil {
		return nil, fail(InputError, "%v", err)
	}
	return values, nil
}

func dtypeOf[T Number]() string {
	var zero T
	return fmt.Sprintf("%T", zero)
}

// NBytes is how many bytes a tensor of this dtype and shape has, whatever its data.
//
// It returns an InputError where there can be no such tensor.
func (t Tensor) NBytes() (int64, error) {
	nbytes, ok := sizeOf(t.DType, t.Shape)
	if !ok {
		return 0, fail(InputError, "%s%s is no tensor", printable(t.DType), formatShape(t.Shape))
	}
	return nbytes, nil
}

// check finds whether the data are as many bytes as dtype and shape say.
func (t Tensor) check() error {
	nbytes, err := t.NBytes()
	if err != nil {
		return err
	}
	if nbytes != int64(len(t.Data)) {
		return fail(InputError, "%s%s has %d bytes, not %d",
			t.DType, formatShape(t.Shape), nbytes, len(t.Data))
	}
	return nil
}

// sizeOf is a tensor's length in bytes; false where there can be no such tensor.
func sizeOf(dtype string, shape []int64) (nbytes int64, ok bool) {
	itemSize, known := dtypeNBytes[dtype]
	if !known || len(shape) > maxRank {
		return 0, false
	}
	// Bounded without its zeros too, so that no product of extents overflows anywhere.
	nbytes = itemSize
	empty := false
	for _, extent := range shape {
		switch {
		case extent < 0:
			return 0, false
		case extent == 0:
			empty = true
		case extent > maxTensorNBytes/nbytes:
			return 0, false
		default:
			nbytes *= extent
		}
	}
	if empty {
		return 0, true
	}
	return nbytes, true
}

func formatShape(shape []int64) string {
	extents := make([]string, len(shape))
	for i, extent := range shape {
		extents[i] = fmt.Sprint(extent)
	}
	return "[" + strings.Join(extents, ", ") + "]"
}
