package request

import (
	"fmt"
	"slices"
	"strings"

	"github.com/naru-project/naru/pkg/problem"
)

// Need is what a stage takes: so many of these people, by id.
type Need struct {
	Stage  string
	Needed int
	People []string
}

// Satisfiable reports whether all the needs can be met with distinct people of whom none is excluded. The error names the
// stages that cannot, and why.
func Satisfiable(needs []Need, excluded []string) error {
	total := 0
	for _, n := range needs {
		total += n.Needed
	}
	var places [][]string // one for each decision that is needed
	var of []int
	for i, n := range needs {
		var people []string
		for _, p := range n.People {
			if !slices.Contains(excluded, p) {
				people = append(people, p)
			}
		}
		if len(people) < n.Needed {
			return problem.Newf(problem.WrongState, "Ask an administrator to name more people for it, who have a role to decide there, or to change the policy.",
				"stage %s takes %s, and %s could give them beside those whose request it is", n.Stage, approvals(n.Needed), persons(len(people)))
		}
		// Of as many people as there are places, each place finds one that no other takes: more need not be looked at.
		people = people[:min(len(people), total)]
		for range n.Needed {
			places, of = append(places, people), append(of, i)
		}
	}
	taken := map[string]int{} // person to place
	var short []string
	for i := range places {
		if !seat(places, i, taken, map[string]bool{}) {
			short = append(short, needs[of[i]].Stage)
		}
	}
	if len(short) == 0 {
		return nil
	}
	return problem.Newf(problem.WrongState, "Ask an administrator to name more people, or to change the policy.",
		"the same people would have to decide in several stages, and everybody decides once: too few are left for %s", strings.Join(slices.Compact(short), ", "))
}

// seat gives place i a person, and the one who had that person another, if it can be done.
func seat(places [][]string, i int, taken map[string]int, tried map[string]bool) bool {
	for _, p := range places[i] {
		if tried[p] {
			continue
		}
		tried[p] = true
		if at, ok := taken[p]; !ok || seat(places, at, taken, tried) {
			taken[p] = i
			return true
		}
	}
	return false
}

func approvals(n int) string {
	if n == 1 {
		return "one approval"
	}
	return fmt.Sprintf("%d approvals", n)
}

func persons(n int) string {
	switch n {
	case 0:
		return "nobody"
	case 1:
		return "one person only"
	}
	return fmt.Sprintf("%d people only", n)
}
