package fsm_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestASubmissionWithTimesThatAreOverIsRefusedByTheClock of the log, whatever the server's own says.
func TestASubmissionWithTimesThatAreOverIsRefusedByTheClock(t *testing.T) {
	p := staffed(t)
	p.draft("r", func(m *apiv1.Request) { m.DecideBy = timestamppb.New(p.now.Add(time.Hour)) })
	c := p.submission("r", "review")
	p.now = p.now.Add(time.Hour)
	if got := p.refuse(problem.Invalid, c); got.GetErrors()[0].GetField() != "decide_by" {
		t.Error(got)
	}
	p.draft("begins", func(m *apiv1.Request) {
		m.DesiredStart, m.CarryOutBy = timestamppb.New(p.now.Add(2*time.Hour)), timestamppb.New(p.now.Add(time.Hour))
	})
	if got := p.refuse(problem.Invalid, p.submission("begins", "review")); got.GetErrors()[0].GetField() != "carry_out_by" {
		t.Error(got)
	}
}
