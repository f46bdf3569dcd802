package grade_test

import (
	"testing"

	"github.com/naru-project/naru/pkg/grade"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	unset      = apiv1.Zone_GRADE_UNSPECIFIED
	open       = apiv1.Zone_OPEN
	sensitive  = apiv1.Zone_SENSITIVE
	classified = apiv1.Zone_CLASSIFIED
)

func TestAMixTakesTheHighest(t *testing.T) {
	for _, c := range []struct {
		of   []apiv1.Zone_Grade
		want apiv1.Zone_Grade
	}{
		{nil, open},
		{[]apiv1.Zone_Grade{unset, unset}, open},
		{[]apiv1.Zone_Grade{open, sensitive, unset}, sensitive},
		{[]apiv1.Zone_Grade{classified, sensitive}, classified},
	} {
		if got := grade.Highest(c.of...); got != c.want {
			t.Errorf("of %v it is %v, not %v", c.of, got, c.want)
		}
	}
}

func TestWhatStandsInAZoneIsOfItsGradeOrLower(t *testing.T) {
	for _, c := range []struct {
		what, zone apiv1.Zone_Grade
		may        bool
	}{
		{unset, unset, true}, {unset, open, true}, {open, unset, true}, {sensitive, unset, false}, {sensitive, open, false},
		{sensitive, sensitive, true}, {open, classified, true}, {classified, sensitive, false}, {classified, classified, true},
	} {
		if got := grade.MayStand(c.what, c.zone); got != c.may {
			t.Errorf("%s in a zone that is %s: %v", grade.Word(c.what), grade.Word(c.zone), got)
		}
	}
}
