package wasmgraph

import (
	"fmt"
	"slices"
	"strings"
)

// byName puts tensors into the order of a graph's inputs.
func byName(specs []TensorSpec, given map[string]Tensor) ([]Tensor, error) {
	var problems []string
	ordered := make([]Tensor, len(specs))
	for i, spec := range specs {
		tensor, ok := given[spec.Name]
		if !ok {
			problems = append(problems, fmt.Sprintf("input %v is missing", spec))
		}
		ordered[i] = tensor
	}
	for name := range given {
		if !slices.ContainsFunc(specs, func(spec TensorSpec) bool { return spec.Name == name }) {
			problems = append(problems, fmt.Sprintf("there is no input named '%s'", printable(name)))
		}
	}
	return ordered, inputError(specs, problems)
}

// checkInputs finds whether tensors are what a graph takes, all problems in one error.
func checkInputs(specs []TensorSpec, tensors []Tensor) error {
	if len(tensors) != len(specs) {
		return inputError(specs, []string{fmt.Sprintf("%d inputs were given", len(tensors))})
	}
	var problems []string
	for i, spec := range specs {
		tensor := tensors[i]
		name := printable(spec.Name)
		switch err := tensor.check(); {
		case tensor.DType != spec.DType:
			problems = append(problems, fmt.Sprintf("input '%s': expected dtype %s, found %s",
				name, spec.DType, printable(tensor.DType)))
		case !spec.fits(tensor.Shape):
			problems = append(problems, fmt.Sprintf("input '%s': expected %v, found shape %s",
				name, spec, formatShape(tensor.Shape)))
		case err != nil:
			problems = append(problems, fmt.Sprintf("input '%s': %v", name, err))
		}
	}
	if len(problems) == 0 {
		problems = contradictions(specs, tensors)
	}
	return inputError(specs, problems)
}

// contradictions are axes to which inputs give different extents.
func contradictions(specs []TensorSpec, tensors []Tensor) (problems []string) {
	type giver struct {
		extent int64
		input  string
	}
	given := map[string]giver{}
	for i, spec := range specs {
		for axis, known := range spec.Shape {
			if known.Size >= 0 || spec.hasAnyRank() {
				continue
			}
			extent := tensors[i].Shape[axis]
			first, seen := given[known.Axis]
			if !seen {
				given[known.Axis] = giver{extent, spec.Name}
			} else if first.extent != extent {
				problems = append(problems, fmt.Sprintf("axis '%v' is %d in input '%s' and %d in input '%s'",
					known, first.extent, printable(first.input), extent, printable(spec.Name)))
			}
		}
	}
	return problems
}

func inputError(specs []TensorSpec, problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	slices.Sort(problems)
	takes := make([]string, len(specs))
	for i, spec := range specs {
		takes[i] = spec.String()
	}
	if len(takes) == 0 {
		takes = []string{"no inputs"}
	}
	return fail(InputError, "%s", strings.Join(problems, "\n")).
		hint("the graph takes " + strings.Join(takes, ", "))
}
