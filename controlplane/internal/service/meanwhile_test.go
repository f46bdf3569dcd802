package service_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/controller/requests"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// meddled lets something happen between what a leader has seen and what it proposes on that.
type meddled struct {
	clocked
	meanwhile func(*commandv1.Command)
}

func (m meddled) Propose(ctx context.Context, in *commandv1.Command) (*commandv1.Result, error) {
	m.meanwhile(in)
	return m.clocked.Propose(ctx, in)
}

// turnWith is a turn of the leader in which something happens once, just before it proposes what is asked for.
func (o *office) turnWith(is func(*commandv1.Command) bool, happens func()) {
	o.Helper()
	done := false
	c := requests.New(requests.Config{Reader: o.DB, Chooser: o.Chooser, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return o.now },
		Proposer: meddled{clocked{o}, func(in *commandv1.Command) {
			if is(in) && !done {
				done = true
				happens()
			}
		}}})
	if err := c.Turn(o.Context()); err != nil {
		o.Fatal(err)
	}
	if !done {
		o.Error("it was not proposed")
	}
}

func fails(in *commandv1.Command) bool {
	return in.GetPassRequest().GetWhat() == commandv1.PassRequest_FAIL
}

// inGroup gives a user a role in a project by a group of theirs, and nothing else.
func (o *office) inGroup(group, who, role, project string) {
	o.Helper()
	o.group(group, who)
	if _, err := o.Admin().RoleBindings.CreateRoleBinding(o.Context(), &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
		Role: role, Group: group, Scope: apiv1.RoleBinding_PROJECT, Place: project}}); err != nil {
		o.Fatal(err)
	}
}

func (o *office) takeFrom(group, who string) {
	o.Helper()
	if _, err := o.Admin().Groups.RemoveGroupMember(o.Context(), &apiv1.RemoveGroupMemberRequest{Group: group, User: who}); err != nil {
		o.Fatal(err)
	}
}

// TestWhoIsBackOnTheSeventhDayLosesNothing: that they were away was found before, and is found anew.
func TestWhoIsBackOnTheSeventhDayLosesNothing(t *testing.T) {
	for about, back := range map[string]struct{ leave, back func(*office) }{
		"was disabled":          {func(o *office) { o.disable("ann") }, func(o *office) { o.enable("ann") }},
		"had no role":           {func(o *office) { o.Unbind("b-ann") }, func(o *office) { o.Bind("b-ann2", "user", o.users["ann"], apiv1.RoleBinding_PROJECT, "web") }},
		"had no group with one": {func(o *office) { o.Unbind("b-ann") }, func(o *office) { o.inGroup("askers", "ann", "user", "web") }},
	} {
		t.Run(about, func(t *testing.T) {
			o := bossed(t)
			if _, err := o.submit("ann", access("project-operator", 0, 30)); err != nil {
				t.Fatal(err)
			}
			o.approved("r-1", "bob", "dan")
			back.leave(o)
			o.turn()
			o.now = o.now.Add(7*24*time.Hour + time.Minute)
			o.turnWith(fails, func() { back.back(o) })
			if m := o.show("dan", "r-1"); m.GetFulfilment() == apiv1.Request_FAILED {
				t.Fatalf("it failed: %v", m)
			}
			for range 2 {
				o.turn()
			}
			if m := o.show("dan", "r-1"); m.GetFulfilment() != apiv1.Request_DONE || m.GetOrphanedAt() != nil {
				t.Errorf("ann is back: %v", m)
			}
		})
	}
}

// TestNothingIsCarriedOutForWhoWasTakenOutOfTheirGroupMeanwhile, neither for who asked nor for whom it is.
func TestNothingIsCarriedOutForWhoWasTakenOutOfTheirGroupMeanwhile(t *testing.T) {
	for about, who := range map[string]struct{ name, says string }{
		"asked":      {"ann", "ann, who asked for it, may not ask for it"},
		"is to have": {"eve", "eve, for whom it is, has no role in project web"},
	} {
		t.Run(about, func(t *testing.T) {
			o := bossed(t)
			o.users["eve"] = o.User("eve", apiv1.User_PERSON)
			o.inGroup("askers", who.name, "user", "web")
			if who.name == "ann" {
				o.Unbind("b-ann")
				o.Bind("b-eve", "user", o.users["eve"], apiv1.RoleBinding_PROJECT, "web")
			}
			m := access("project-operator", 0, 30)
			m.OnBehalfOf = "eve"
			if _, err := o.submit("ann", m); err != nil {
				t.Fatal(err)
			}
			o.approved("r-1", "bob", "dan")
			o.turnWith(func(in *commandv1.Command) bool { return in.GetCarryOutRequest() != nil }, func() { o.takeFrom("askers", who.name) })
			o.turn()
			if m := o.show("dan", "r-1"); slices.ContainsFunc(o.bindings("eve"), func(b *apiv1.RoleBinding) bool { return b.GetRole() == "project-operator" }) || !strings.Contains(m.GetFulfilmentReason(), who.says) {
				t.Errorf("eve has %v, and %v", o.bindings("eve"), m)
			}
		})
	}
}

// TestAServerWhoseClockIsWrongOpensNoStageThatIsOver: it says so, and another one does it.
func TestAServerWhoseClockIsWrongOpensNoStageThatIsOver(t *testing.T) {
	review, approval := reviewStage(), reviewStage()
	approval.Name, approval.Sequence, approval.Eligible = "approval", 2, &apiv1.Eligibility{Users: []string{"dan"}}
	for _, s := range []*apiv1.StageTemplate{review, approval} {
		s.DueHours, s.OnDue = 8, apiv1.StageTemplate_EXPIRE
	}
	o := newOffice(t, review, approval)
	o.Bind("b-dan", "approver", o.users["dan"], apiv1.RoleBinding_PROJECT, "web")
	wrong := func(err error) {
		t.Helper()
		if !problem.Is(err, problem.Conflict) || !strings.Contains(err.Error(), "behind that of the server that leads") || !strings.Contains(problem.Of(err).GetNext(), "another server") {
			t.Errorf("%v", err)
		}
	}
	o.Off = -24 * time.Hour
	_, err := o.submit("ann", ask())
	wrong(err)
	o.Off = 0
	m, err := o.submit("ann", ask())
	if err != nil {
		t.Fatal(err)
	}
	o.Off = -24 * time.Hour
	wrong(o.decide("bob", m.GetName(), apiv1.Decision_APPROVE, nil))
	o.Off = 0
	o.approved(m.GetName(), "bob")
	if s := o.show("ann", m.GetName()).GetStages()[1]; s.GetState() != apiv1.Stage_OPEN || !s.GetDueAt().AsTime().After(time.Now()) {
		t.Errorf("%v", s)
	}
}
