package cli

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAFileThatIsNotKeptAnyMoreIsShownSo(t *testing.T) {
	i := slices.IndexFunc(commentColumns, func(c column[*apiv1.Comment]) bool { return c.head == "FILE" })
	for want, m := range map[string]*apiv1.Comment{
		"":                                    {Text: "a word"},
		"plan.pdf":                            {File: "plan.pdf"},
		"plan.pdf, not kept since 2027-03-01": {File: "plan.pdf", DroppedAt: timestamppb.New(time.Date(2027, 3, 1, 12, 0, 0, 0, time.Local))},
	} {
		if got := commentColumns[i].value(m); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
