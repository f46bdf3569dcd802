package fsm_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// ahead lets the leader's clock have been ten years ahead for a moment; it is right again.
func (p *plane) ahead() {
	p.Helper()
	p.accept(&commandv1.Command{Stamp: timestamppb.New(start.AddDate(10, 0, 0)), Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
}

func (p *plane) passing(id string, what commandv1.PassRequest_What, stage string) *commandv1.Command {
	p.Helper()
	return &commandv1.Command{Actor: "request", Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{
		RequestId: id, ExpectedRevision: p.request(id).GetRevision(), What: what, Stage: stage, Reason: "time"}}}
}

// dueIn is the submission of a request with one stage, which ends it when it was not decided in time.
func (p *plane) dueIn(id string, after time.Duration) *commandv1.Command {
	p.Helper()
	c := p.submission(id, "review")
	in := c.GetSubmitRequest()
	in.Request.Stages[0].OnDue = apiv1.StageTemplate_EXPIRE
	if err := request.Freeze(in.Request); err != nil {
		p.Fatal(err)
	}
	at := timestamppb.New(p.now.Add(after))
	in.Openings, in.ReckonedAt = []*commandv1.DecideRequest_Opening{{Stage: "review", RemindAt: at, DueAt: at}}, timestamppb.New(p.now)
	return c
}

// TestP21AClockThatWasAheadAndWasSetRightEndsNoRequest: nor does it let one begin before its day.
func TestP21AClockThatWasAheadAndWasSetRightEndsNoRequest(t *testing.T) {
	p := staffed(t)
	soon, someday := timestamppb.New(p.now.Add(time.Hour)), timestamppb.New(p.now.Add(days(20)))
	p.draft("r", func(m *apiv1.Request) { m.DecideBy, m.CarryOutBy = soon, soon })
	p.accept(p.dueIn("r", time.Hour))
	p.draft("someday", func(m *apiv1.Request) { m.DesiredStart = someday })
	p.accept(p.submission("someday", "review"))
	p.ahead()
	for _, what := range []commandv1.PassRequest_What{commandv1.PassRequest_EXPIRE, commandv1.PassRequest_REMIND, commandv1.PassRequest_LAPSE} {
		p.refuse(problem.WrongState, p.passing("r", what, "review"))
	}
	p.refuse(problem.WrongState, p.passing("someday", commandv1.PassRequest_WAIT, "")) // no room is kept so long before
	p.approve("r", "bob", "review")
	p.approve("someday", "bob", "review")
	p.refuse(problem.WrongState, p.passing("r", commandv1.PassRequest_LAPSE, ""))
	p.refuse(problem.WrongState, p.carryOut("someday", "b", 0, 1))
	p.accept(p.carryOut("r", "a", 0, 1))
	if m := p.request("r"); m.GetFulfilment() != apiv1.Request_EXECUTING || m.GetDecisions()[0].GetAt().AsTime().Before(start.AddDate(10, 0, 0)) {
		t.Errorf("it is %v, and was decided on at %v: when something was does not go back", m.GetFulfilment(), m.GetDecisions()[0].GetAt().AsTime())
	}
	p.draft("next", func(m *apiv1.Request) { m.DecideBy = timestamppb.New(p.now.Add(time.Hour)) })
	p.accept(p.dueIn("next", time.Hour))
	p.accept(p.delegation("g", "bob", "cho", time.Hour))
	p.accept(p.vote("next", "cho", "review", apiv1.Decision_APPROVE, func(in *commandv1.DecideRequest) {
		in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = "bob", "u-bob", "g"
	}))
}

// TestP21AClockThatWasAheadAndWasSetRightMovesNoEndOfALease, of one that runs, and of one that begins since.
func TestP21AClockThatWasAheadAndWasSetRightMovesNoEndOfALease(t *testing.T) {
	p := leased(t)
	ends := p.leaseOf().GetExpiresAt().AsTime()
	p.ahead()
	p.refuse(problem.WrongState, p.pass(commandv1.PassLease_WARN))
	p.accept(&commandv1.Command{Body: &commandv1.Command_ShortenLease{ShortenLease: &commandv1.ShortenLease{LeaseId: "l", ExpiresAt: timestamppb.New(ends.Add(-time.Hour)), Reason: "cho: not needed"}}})
	p.now = ends.Add(-days(5))
	p.accept(p.pass(commandv1.PassLease_WARN))
	p.refuse(problem.WrongState, p.pass(commandv1.PassLease_EXPIRE))
	p.now = ends
	p.accept(p.pass(commandv1.PassLease_EXPIRE))
	if got, want := p.leaseOf().GetReclaimAt().AsTime(), p.now.Add(days(3)); !got.Equal(want) {
		t.Errorf("its grace lasts until %v, not %v", got, want)
	}
	p.accept(createVM(2))
	next := lease(30)
	next.GetCreateLease().Lease.Id, next.GetCreateLease().Lease.VmId = "l-2", "vm-2"
	p.accept(next)
	p.usable(2)
	begin := &commandv1.PassLease{LeaseId: "l-2", Step: commandv1.PassLease_START}
	p.view(func(tx *state.Tx) { begin.ExpectedRevision = get(p, tx.Leases, "l-2").GetRevision() })
	p.accept(&commandv1.Command{Actor: "lease", Body: &commandv1.Command_PassLease{PassLease: begin}})
	if got, want := p.vm(2).GetExpiresAt().AsTime(), p.now.Add(days(30)); !got.Equal(want) {
		t.Errorf("a lease of 30 days that begins now ends at %v, not %v", got, want)
	}
}

// TestWhenStagesAreDueIsReckonedByTheClockByWhichThatPasses: a server that is a day behind would open a stage that is over.
func TestWhenStagesAreDueIsReckonedByTheClockByWhichThatPasses(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	for off, says := range map[time.Duration]string{-days(1): "24h0m0s behind", days(1): "24h0m0s ahead of", -2 * time.Minute: "2m0s behind"} {
		c := p.dueIn("r", time.Hour)
		c.Stamp = timestamppb.New(p.now)
		c.GetSubmitRequest().ReckonedAt = timestamppb.New(p.now.Add(off))
		if r := p.refuse(problem.Conflict, c); !strings.Contains(r.GetDetail(), says) || !strings.Contains(r.GetNext(), "another server") {
			t.Errorf("%v off: %v", off, r)
		}
	}
	c := p.dueIn("r", time.Hour)
	c.GetSubmitRequest().ReckonedAt = nil
	p.refuse(problem.Invalid, c)
	c = p.dueIn("r", time.Hour)
	c.GetSubmitRequest().ReckonedAt = timestamppb.New(p.now.Add(-50 * time.Second)) // so long it may have waited
	p.accept(c)
	p.submitted("two", "review", "approval")
	opening := func(in *commandv1.DecideRequest) {
		in.Openings = []*commandv1.DecideRequest_Opening{{Stage: "approval", DueAt: timestamppb.New(p.now.Add(-days(1)))}}
		in.ReckonedAt = timestamppb.New(p.now.Add(-days(1) - time.Hour))
	}
	p.refuse(problem.Conflict, p.vote("two", "bob", "review", apiv1.Decision_APPROVE, opening))
	p.accept(p.vote("two", "bob", "review", apiv1.Decision_APPROVE, nil)) // where nothing is due, no clock counts
}
