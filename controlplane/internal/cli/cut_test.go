package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
)

func TestPeopleAreToldOnceThatAZoneIsCutOffAndAnswersForItself(t *testing.T) {
	var out, errOut bytes.Buffer
	a := &app{out: newScreen(&out), err: newScreen(&errOut)}
	since := time.Now().Add(-time.Hour)
	answered := func(said ...string) {
		t.Helper()
		invoke := func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
			for _, o := range opts {
				if h, ok := o.(grpc.HeaderCallOption); ok {
					*h.HeaderAddr = metadata.Pairs(said...)
				}
			}
			return nil
		}
		if err := a.sayWhatIsMissing(t.Context(), "", nil, nil, nil, invoke); err != nil {
			t.Fatal(err)
		}
	}
	answered()
	if errOut.Len() > 0 {
		t.Errorf("of a whole answer it says %q", errOut.String())
	}
	answered(gateway.ConsistencyHeader, gateway.LocalSince(since))
	answered(gateway.ConsistencyHeader, gateway.LocalSince(since)) // a second page
	if said := errOut.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, since.Local().Format(time.DateTime)) || out.Len() > 0 {
		t.Errorf("it says %q, and on standard output %q", said, out.String())
	}
}

func TestWithoutALeaderTheServersAreListedAndSaidToBeOld(t *testing.T) {
	d := newDesk(t)
	d.Leaderless.Store(true)
	r := d.naru("server list")
	if r.code != 0 || !strings.Contains(r.out, "controlplane-1") || !strings.Contains(r.err, "No server leads") {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
}

func TestPeopleAreToldForWhatTheyWait(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	said := new(app).repeated(ctx, problem.ToStatus(problem.New(problem.LinkDown, "the zone has no session", "")))
	want := "The link to the control plane is down: the zone has no session. It is tried again for 1h0m0s more.\n"
	if said != want {
		t.Errorf("it says %q", said)
	}
}
