package wasmgraph

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Kind says what a caller can do about an error; the kinds are those of the Python package.
type Kind string

const (
	// LoadError: the file is not a graph: damaged, foreign imports, another ABI.
	LoadError Kind = "LoadError"
	// InputError: an input is missing, extra or misnamed, or has the wrong dtype or shape.
	InputError Kind = "InputError"
	// MemoryLimitExceeded: the graph needs more memory than the caller allows.
	MemoryLimitExceeded Kind = "MemoryLimitExceeded"
	// RunTimeout: the run took longer than the caller allows.
	RunTimeout Kind = "RunTimeout"
	// InferenceError: the graph trapped, reported an error or returned nonsense.
	InferenceError Kind = "InferenceError"
)

// Error is every error that this package returns on purpose.
type Error struct {
	Kind    Kind
	Message string // what is wrong, in one sentence or a short list
	Hint    string // the way out, or ""
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "\nhint: " + e.Hint
}

// KindOf returns the kind of an error of this package, or "" of any other.
func KindOf(err error) Kind {
	var known *Error
	if errors.As(err, &known) {
		return known.Kind
	}
	return ""
}

func fail(kind Kind, format string, arguments ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, arguments...)}
}

func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}

// printable is text from a graph without what a terminal would obey; line ends stay.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, text)
}

func formatSize(nbytes uint64) string {
	if nbytes < 1024 {
		return fmt.Sprintf("%d B", nbytes)
	}
	amount, unit := float64(nbytes)/1024, "KiB"
	for _, larger := range []string{"MiB", "GiB"} {
		if amount < 1024 {
			break
		}
		amount, unit = amount/1024, larger
	}
	return fmt.Sprintf("%.1f %s", amount, unit)
}
