package service_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestTimesThatAreOverAreToldBeforeTheSubmissionAndRefusedAtIt(t *testing.T) {
	o := newOffice(t)
	for field, change := range map[string]func(*apiv1.Request){
		"decide_by": func(m *apiv1.Request) { m.DecideBy = timestamppb.New(o.now.AddDate(-6, 0, 0)) },
		"carry_out_by": func(m *apiv1.Request) {
			m.DesiredStart, m.CarryOutBy = timestamppb.New(o.now.Add(48*time.Hour)), timestamppb.New(o.now.Add(24*time.Hour))
		},
	} {
		m := ask()
		change(m)
		r, err := o.As(o.users["ann"]).Requests.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: m})
		if err != nil || len(r.GetProblem().GetErrors()) != 1 || r.GetProblem().GetErrors()[0].GetField() != field {
			t.Errorf("%s: %v, %v", field, r.GetProblem(), err)
		}
		if _, err := o.submit("ann", m); !problem.Is(err, problem.Invalid) || problem.Of(err).GetErrors()[0].GetField() != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if mine, err := o.As(o.users["ann"]).Requests.ListRequests(t.Context(), &apiv1.ListRequestsRequest{Mine: true}); err != nil || len(mine.GetRequests()) != 0 {
		t.Errorf("what is wrong in itself left a draft: %v, %v", mine, err)
	}
}
