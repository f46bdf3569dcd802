package fsm_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestNobodyDecidesOnAnotherRequestThanIsCarriedOut: what is stored beside the bytes that people see says the same.
func TestNobodyDecidesOnAnotherRequestThanIsCarriedOut(t *testing.T) {
	for about, change := range map[string]func(*apiv1.Request){
		"specification": func(m *apiv1.Request) { m.GetSpecification().GetCreate().Quantity = 20 },
		"monthly_cost":  func(m *apiv1.Request) { m.MonthlyCost = &apiv1.Money{Amount: "1", Currency: "KRW"} },
		"amount":        func(m *apiv1.Request) { m.Amount = &apiv1.Resources{Cores: 1} },
		"grade":         func(m *apiv1.Request) { m.Grade = apiv1.Zone_OPEN },
		"lease_days":    func(m *apiv1.Request) { m.LeaseDays = 9999 },
		"policy_trace":  func(m *apiv1.Request) { m.PolicyTrace = []string{"all is well"} },
		"change_type":   func(m *apiv1.Request) { m.ChangeType = apiv1.ChangeType_EMERGENCY },
		"organization":  func(m *apiv1.Request) { m.Organization = "another" },
	} {
		t.Run(about, func(t *testing.T) {
			p := staffed(t)
			p.draft("r", nil)
			c := p.submission("r", "review")
			change(c.GetSubmitRequest().GetRequest())
			if got := p.refuse(problem.Invalid, c); !strings.Contains(got.GetDetail(), "another "+about) {
				t.Error(got)
			}
		})
	}
	p := staffed(t)
	p.draft("r", nil)
	c := p.submission("r", "review")
	m := c.GetSubmitRequest().GetRequest()
	kept := proto.CloneOf(m)
	kept.Title = "what people are shown, and nobody asked for"
	if err := request.Freeze(kept); err != nil {
		t.Fatal(err)
	}
	m.Frozen, m.FrozenHash = kept.GetFrozen(), kept.GetFrozenHash()
	p.refuse(problem.Invalid, c)
}
