package request_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/request"
)

// TestARequestIsSatisfiable… compares with trying every assignment (4).
func TestARequestIsSatisfiableWhenSomeAssignmentOfPeopleIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var needs []request.Need
		for i := range rapid.IntRange(1, 3).Draw(t, "stages") {
			needs = append(needs, request.Need{
				Stage: fmt.Sprint("s", i), Needed: rapid.IntRange(1, 2).Draw(t, "needed"),
				People: rapid.SliceOfNDistinct(rapid.SampledFrom(people), 0, 4, rapid.ID[string]).Draw(t, "people"),
			})
		}
		excluded := rapid.SliceOfNDistinct(rapid.SampledFrom(people), 0, 2, rapid.ID[string]).Draw(t, "excluded")
		if err := request.Satisfiable(needs, excluded); (err == nil) != assignable(needs, excluded) {
			t.Fatalf("%v, excluded %v: %v", needs, excluded, err)
		}
	})
}

func assignable(needs []request.Need, used []string) bool {
	if len(needs) == 0 {
		return true
	}
	n := needs[0]
	if n.Needed == 0 {
		return assignable(needs[1:], used)
	}
	for i, p := range n.People {
		if slices.Contains(used, p) {
			continue
		}
		rest := append([]request.Need{{Stage: n.Stage, Needed: n.Needed - 1, People: n.People[i+1:]}}, needs[1:]...)
		if assignable(rest, append(slices.Clone(used), p)) {
			return true
		}
	}
	return false
}
