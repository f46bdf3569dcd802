package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// A VM whose lease is over says so in the list, also where its zone is cut off and it still runs; in full the list says when it ends.
func TestTheListOfVMsShowsWhoseLeaseIsOver(t *testing.T) {
	ends := func(in time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(in)) }
	var out bytes.Buffer
	a := &app{out: newScreen(&out), output: "wide"}
	if err := printList(a, vmColumns, []*apiv1.VM{
		{Name: "over", State: apiv1.VM_RUNNING, ExpiresAt: ends(-time.Hour)}, {Name: "busy", State: apiv1.VM_STOPPED, Task: apiv1.VM_STARTING, ExpiresAt: ends(-time.Hour)},
		{Name: "leased", State: apiv1.VM_RUNNING, ExpiresAt: ends(time.Hour)}, {Name: "free", State: apiv1.VM_RUNNING}, {Name: "gone", State: apiv1.VM_TRASHED, ExpiresAt: ends(-time.Hour)},
	}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[0], "EXPIRES") || !strings.Contains(lines[3], local(ends(time.Hour))[:13]) {
		t.Errorf("the list does not say when leases end:\n%s", out.String())
	}
	for i, want := range []string{"running (lease over)", "stopped (starting, lease over)", "running  ", "running  ", "trashed  "} {
		if !strings.Contains(lines[i+1], want) || strings.Contains(lines[i+1], "lease over") != strings.Contains(want, "lease over") {
			t.Errorf("line %d does not say %q:\n%s", i+1, want, out.String())
		}
	}
}
