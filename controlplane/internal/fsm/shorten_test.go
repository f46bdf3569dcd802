package fsm_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func shortenBinding(id string, until time.Time) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ShortenRoleBinding{ShortenRoleBinding: &commandv1.ShortenRoleBinding{
		RoleBindingId: id, ExpiresAt: timestamppb.New(until), Reason: "lee: the work is done"}}}
}

func TestARoleIsShortenedButNotIntoThePastNorLengthened(t *testing.T) {
	p := peopled(t)
	p.accept(give("b", "user", "kim", "project:shop", p.now.Add(days(9))))
	p.refuse(problem.NotFound, shortenBinding("none", p.now.Add(days(2))))
	p.refuse(problem.Invalid, shortenBinding("b", p.now))
	p.refuse(problem.Invalid, shortenBinding("b", p.now.Add(days(10))))
	stale := shortenBinding("b", p.now.Add(days(2)))
	stale.GetShortenRoleBinding().ExpectedRevision = "1-1"
	p.refuse(problem.Conflict, stale)
	end := p.now.Add(days(2))
	p.accept(shortenBinding("b", end))
	p.view(func(tx *state.Tx) {
		if m := get(p, tx.RoleBindings, "b"); !m.GetExpiresAt().AsTime().Equal(end) || m.GetShortened() != "lee: the work is done" || m.GetUser() != "kim" || m.GetRole() != "user" {
			t.Errorf("%v", m)
		}
		told := 0
		for n, err := range tx.Notifications.All(state.Scope{"user_id": "u-kim"}) {
			if err == nil && n.GetTopic() == "role.shortened" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("kim was told %d times", told)
		}
		if ended, err := tx.RoleBindingsEnded(timestamppb.New(end.Add(-time.Second)), timestamppb.New(end)); err != nil || !ended {
			t.Errorf("it is not seen to end: %v, %v", ended, err)
		}
	})
	if p.events()["role.shortened"] != 1 {
		t.Errorf("%v", p.events())
	}
	p.refuse(problem.Invalid, shortenBinding("b", end))
	p.now = end
	p.refuse(problem.WrongState, shortenBinding("b", p.now.Add(time.Hour)))
}

func TestWhoseGroupsRoleIsShortenedIsTold(t *testing.T) {
	p := peopled(t)
	p.accept(createGroup("crew"))
	for _, name := range []string{"kim", "lee"} {
		p.accept(enter("crew", name))
	}
	p.accept(give("b", "user", "group:crew", "project:shop", never))
	p.accept(p.by("u-lee", shortenBinding("b", p.now.Add(days(2)))))
	told := map[string]int{}
	p.view(func(tx *state.Tx) {
		for n, err := range tx.Notifications.All(nil) {
			if err == nil && n.GetTopic() == "role.shortened" {
				told[n.GetUserId()]++
			}
		}
	})
	if len(told) != 1 || told["u-kim"] != 1 {
		t.Errorf("told are %v, and not kim once", told)
	}
}

func TestTheLastFederationAdministratorIsNotShortened(t *testing.T) {
	p := peopled(t)
	p.chosen("kim", "lee")
	p.accept(give("b", "federation-administrator", "kim", "", never))
	if got := p.refuse(problem.InUse, shortenBinding("b", p.now.Add(time.Hour))).GetDetail(); !strings.Contains(got, "nobody who can log in would administer") {
		t.Error(got)
	}
	p.accept(give("b2", "federation-administrator", "lee", "", never))
	p.accept(shortenBinding("b", p.now.Add(time.Hour)))
	for _, last := range []*commandv1.Command{shortenBinding("b2", p.now.Add(time.Hour)), take("b2"), disableUser("lee")} { // the other ends in an hour
		if got := p.refuse(problem.InUse, last).GetDetail(); !strings.Contains(got, "for a time") {
			t.Error(got)
		}
	}
}

func TestACrossingIsShortenedButNotIntoThePastNorLengthened(t *testing.T) {
	p := peopled(t)
	p.accept(createZone("internet"))
	p.accept(&commandv1.Command{Body: &commandv1.Command_CreateCrossing{CreateCrossing: &commandv1.CreateCrossing{Crossing: &apiv1.Crossing{
		Id: "x", Project: "shop", ProjectId: "p-shop", SourceZone: "internet", SourceZoneId: "z-internet", Zone: "business", ZoneId: "z-business",
		Permissions: []string{"vm.start"}, EndsAt: timestamppb.New(p.now.Add(days(9)))}}}})
	shorten := func(until time.Time) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_ShortenCrossing{ShortenCrossing: &commandv1.ShortenCrossing{
			CrossingId: "x", EndsAt: timestamppb.New(until), Reason: "lee: the work is done"}}}
	}
	p.refuse(problem.Invalid, shorten(p.now))
	p.refuse(problem.Invalid, shorten(p.now.Add(days(10))))
	end := p.now.Add(days(2))
	p.accept(shorten(end))
	p.view(func(tx *state.Tx) {
		if m := get(p, tx.Crossings, "x"); !m.GetEndsAt().AsTime().Equal(end) || m.GetShortened() == "" {
			t.Errorf("%v", m)
		}
		for at, want := range map[time.Time]int{end.Add(-time.Second): 1, end: 0} {
			if open, err := tx.CrossingsFrom("z-internet", timestamppb.New(at)); err != nil || len(open) != want {
				t.Errorf("at %s one crosses by %v, %v", at, open, err)
			}
		}
	})
	if p.events()["crossing.shortened"] != 1 {
		t.Errorf("%v", p.events())
	}
}
