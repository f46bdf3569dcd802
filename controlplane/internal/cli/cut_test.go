package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
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

func TestWhatIsRepeatedUnderItsKeyIsDoneOnce(t *testing.T) {
	d := newDesk(t)
	for range 2 {
		if got := d.must("flavor create s7 --memory-mib 64 --idempotency-key again"); !strings.Contains(got, "create done") {
			t.Errorf("it says %q", got)
		}
	}
	if r := d.naru("flavor create s7 --memory-mib 64"); r.code != problem.ExitConflict {
		t.Errorf("without the key: %+v", r)
	}
}

func TestWhatLastsForATimeIsRepeatedUnderTheKeyThatSaysWhenItWasMade(t *testing.T) {
	d := newDesk(t)
	d.must("role create viewer --permissions vm.read")
	d.must("user create robot --kind service")
	key := uuid.Must(uuid.NewV7()).String()
	for range 2 {
		time.Sleep(2 * time.Millisecond) // the clock goes on
		d.must("role-binding create viewer --user robot --lifetime 1h --idempotency-key " + key)
	}
	if got := d.must("role-binding list -o json"); strings.Count(got, `"robot"`) != 1 {
		t.Errorf("it is given twice: %s", got)
	}
	for _, bad := range []string{"", strings.Repeat("k", 121), "키"} {
		if r := d.naru("flavor create s8 --memory-mib 64 --idempotency-key=" + bad); r.code != problem.ExitUsage || !strings.Contains(r.err, "1 to 120") {
			t.Errorf("%+v", r)
		}
	}
}

func TestWhereItIsNotKnownWhetherItWasDoneTheKeyIsNamed(t *testing.T) {
	broke := problem.New(problem.LinkDown, "the link broke before the answer came; whether it was done is unknown", "Repeat it with the same Idempotency-Key: then it is done once.")
	unreached := problem.New(problem.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`, "")
	for _, c := range []struct {
		err   error
		wrote bool
		named bool
	}{{broke, true, true}, {broke, false, false}, {problem.New(problem.Timeout, "", ""), true, true}, {unreached, true, false}} {
		var out bytes.Buffer
		a := &app{err: newScreen(&out), command: &cobra.Command{Use: "create"}, key: "k1", wrote: c.wrote}
		a.explain(c.err)
		if strings.Contains(out.String(), "--idempotency-key k1 ") != c.named || strings.Contains(out.String(), "Idempotency-Key") {
			t.Errorf("%v: it says %s", c, out.String())
		}
	}
}
