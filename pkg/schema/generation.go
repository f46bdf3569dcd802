package schema

import (
	"cmp"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// CompareGenerations returns -1, 0 or 1 as a was wished before b, is b, or was wished after it, in a zone: what is put in the place of a
// wish there comes after it.
func CompareGenerations(a, b *apiv1.Generation) int {
	return cmp.Or(cmp.Compare(a.GetEpoch(), b.GetEpoch()), cmp.Compare(a.GetIndex(), b.GetIndex()), cmp.Compare(a.GetOverride(), b.GetOverride()))
}
