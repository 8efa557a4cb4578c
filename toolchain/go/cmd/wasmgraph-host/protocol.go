package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"wasmgraph"
)

// maxHeaderNBytes bounds a header, so that a broken length asks for no gigabytes.
const maxHeaderNBytes = 1 << 24

// request is a frame from the parent: a header, and the bytes of the tensors that it announces.
type request struct {
	Do       string       `json:"do"`
	Path     string       `json:"path"`
	Threads  int          `json:"threads"`
	Memory   *uint64      `json:"memory"`
	Seconds  *float64     `json:"seconds"`
	Cache    bool         `json:"cache"`
	Instance int          `json:"instance"`
	Inputs   []tensorForm `json:"inputs"`
	Index    uint32       `json:"index"`
	Times    uint32       `json:"times"`
	Payload  uint64       `json:"payload"`

	payload []byte
}

type tensorForm struct {
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
}

type answer struct {
	OK      any          `json:"ok,omitempty"`
	Error   *errorAnswer `json:"error,omitempty"`
	Payload uint64       `json:"payload,omitempty"`

	payload [][]byte
}

type errorAnswer struct {
	Kind    wasmgraph.Kind `json:"kind"`
	Message string         `json:"message"`
	Hint    *string        `json:"hint"`
}

func readRequest(stream io.Reader) (*request, error) {
	var length uint32
	if err := binary.Read(stream, binary.LittleEndian, &length); err != nil {
		return nil, err
	}
	if length > maxHeaderNBytes {
		return nil, fmt.Errorf("a header of %d bytes", length)
	}
	header := make([]byte, length)
	if _, err := io.ReadFull(stream, header); err != nil {
		return nil, err
	}
	r := &request{}
	if err := json.Unmarshal(header, r); err != nil {
		return nil, err
	}
	if r.Payload > 1<<32 {
		return nil, fmt.Errorf("a payload of %d bytes", r.Payload)
	}
	r.payload = make([]byte, r.Payload)
	_, err := io.ReadFull(stream, r.payload)
	return r, err
}

// tensors cuts the payload into the tensors that the header announces.
func (r *request) tensors() ([]wasmgraph.Tensor, error) {
	tensors := make([]wasmgraph.Tensor, len(r.Inputs))
	rest := r.payload
	for i, form := range r.Inputs {
		tensor := wasmgraph.Tensor{DType: form.DType, Shape: form.Shape}
		nbytes, err := tensor.NBytes()
		if err != nil {
			return nil, err
		}
		if nbytes > int64(len(rest)) {
			return nil, &wasmgraph.Error{Kind: wasmgraph.InputError, Message: "the tensors are longer than their bytes"}
		}
		tensor.Data, rest = rest[:nbytes], rest[nbytes:]
		tensors[i] = tensor
	}
	if len(rest) > 0 {
		return nil, &wasmgraph.Error{Kind: wasmgraph.InputError, Message: "the tensors are shorter than their bytes"}
	}
	return tensors, nil
}

func writeFrame(stream io.Writer, header any, payload ...[]byte) error {
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	frame := binary.LittleEndian.AppendUint32(nil, uint32(len(text)))
	for _, part := range append([][]byte{append(frame, text...)}, payload...) {
		if _, err := stream.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// failure is the answer that tells of an error.
func failure(err error) answer {
	var known *wasmgraph.Error
	if !errors.As(err, &known) {
		return answer{Error: &errorAnswer{Kind: wasmgraph.InferenceError, Message: err.Error()}}
	}
	told := &errorAnswer{Kind: known.Kind, Message: known.Message}
	if known.Hint != "" {
		told.Hint = &known.Hint
	}
	return answer{Error: told}
}
