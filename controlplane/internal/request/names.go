package request

import (
	"fmt"
	"strings"

	"github.com/naru-project/naru/pkg/problem"
)

// Names returns names for so many VMs after a pattern: a run of # is the number, with as many digits. Numbers whose name is
// taken are passed over. Without a # there is one name only.
func Names(pattern string, quantity uint32, taken func(string) (bool, error)) ([]string, error) {
	if pattern == "" {
		return nil, problem.New(problem.Invalid, "the request does not say how its VMs are called", "Name them: web-1, or web-## for several.").
			With("specification.create.name_pattern", "is required")
	}
	quantity = max(quantity, 1)
	first := strings.Index(pattern, "#")
	if first < 0 {
		if quantity > 1 {
			return nil, problem.Newf(problem.Invalid, "Write # where the number goes: "+pattern+"-##.", "%d VMs cannot all be called %s", quantity, pattern).
				With("specification.create.name_pattern", "has no #")
		}
		if is, err := taken(pattern); is || err != nil {
			return nil, orTaken(err, pattern)
		}
		return []string{pattern}, nil
	}
	digits := len(pattern[first:]) - len(strings.TrimLeft(pattern[first:], "#"))
	before, after := pattern[:first], pattern[first+digits:]
	if strings.Contains(after, "#") {
		return nil, problem.Newf(problem.Invalid, "Write one run of #.", "%s has more than one place for the number", pattern).
			With("specification.create.name_pattern", "has more than one run of #")
	}
	last := 1
	for range min(digits, 4) { // no project has more VMs of one name
		last *= 10
	}
	var out []string
	for n := 1; n < last && len(out) < int(quantity); n++ {
		name := fmt.Sprintf("%s%0*d%s", before, digits, n, after)
		is, err := taken(name)
		if err != nil {
			return nil, err
		}
		if !is {
			out = append(out, name)
		}
	}
	if len(out) < int(quantity) {
		return nil, problem.Newf(problem.NameTaken, "Choose another name, or write more #.", "only %d of %d names are free after %s", len(out), quantity, pattern).
			With("specification.create.name_pattern", "has too few free numbers")
	}
	return out, nil
}

func orTaken(err error, name string) error {
	if err != nil {
		return err
	}
	return problem.Newf(problem.NameTaken, "Choose another name.", "there is a VM named %s already", name).With("specification.create.name_pattern", "is taken")
}
