package service_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestWhatIsGivenForATimeEndsByTheClockThatStampsCommands, in what somebody may do as in what is named to others.
func TestWhatIsGivenForATimeEndsByTheClockThatStampsCommands(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	w.Roles()
	kim := w.User("kim", apiv1.User_PERSON)
	if _, err := w.Admin().RoleBindings.CreateRoleBinding(t.Context(), &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
		Role: "zone-administrator", User: "kim", Scope: apiv1.RoleBinding_ZONE, Place: "business", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}}); err != nil {
		t.Fatal(err)
	}
	hosts := func() int {
		t.Helper()
		r, err := w.As(kim).Hosts.ListHosts(t.Context(), &apiv1.ListHostsRequest{})
		if err != nil {
			return 0
		}
		return len(r.GetHosts())
	}
	if n := hosts(); n == 0 {
		t.Fatal("kim sees no host while the role lasts")
	}
	for _, c := range []struct {
		off   time.Duration
		sees  bool
		state string
	}{{2 * time.Hour, false, "after its end"}, {0, true, "when the clock is set right"}} {
		if w.Off = c.off; hosts() > 0 != c.sees {
			t.Errorf("kim sees %d hosts by the role %s", hosts(), c.state)
		}
	}
}
