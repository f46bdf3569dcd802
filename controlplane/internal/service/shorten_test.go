package service_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func (o *office) shorten(who, binding string, end time.Time) error {
	_, err := o.As(o.users[who]).RoleBindings.ShortenRoleBinding(o.Context(), &apiv1.ShortenRoleBindingRequest{
		RoleBinding: binding, ExpiresAt: timestamppb.New(end), Reason: "a day is enough"})
	return err
}

// TestAnApproverShortensWhatARequestGranted, and nothing that somebody gave by their own right; nobody lengthens it.
func TestAnApproverShortensWhatARequestGranted(t *testing.T) {
	o := bossed(t)
	o.users["eun"] = o.User("eun", apiv1.User_PERSON)
	o.Bind("b-eun", "approver", o.users["eun"], apiv1.RoleBinding_PROJECT, "web")
	if _, err := o.submit("ann", access("project-operator", 0, 3)); err != nil {
		t.Fatal(err)
	}
	o.approved("r-1", "bob", "dan")
	o.turn()
	id := o.show("ann", "r-1").GetResults()[0].GetId()
	tomorrow := o.now.AddDate(0, 0, 1)
	for who, code := range map[string]problem.Code{"ann": problem.Forbidden, "bob": problem.Forbidden} {
		if err := o.shorten(who, id, tomorrow); !problem.Is(err, code) {
			t.Errorf("%s: %v", who, err)
		}
	}
	if err := o.shorten("eun", id, o.now.AddDate(0, 0, 9)); !problem.Is(err, problem.Invalid) {
		t.Errorf("for longer: %v", err)
	}
	if err := o.shorten("eun", id, tomorrow); err != nil {
		t.Fatal(err)
	}
	all := o.bindings("ann")
	b := all[slices.IndexFunc(all, func(b *apiv1.RoleBinding) bool { return b.GetId() == id })]
	told, err := o.As(o.users["ann"]).Notifications.ListNotifications(t.Context(), &apiv1.ListNotificationsRequest{Filter: "topic=role.shortened"})
	if err != nil || len(told.GetNotifications()) != 1 || told.GetNotifications()[0].GetAbout().GetName() != "ann/project-operator" || len(told.GetNotifications()[0].GetParameters()) == 0 {
		t.Errorf("ann is told %v, %v", told, err)
	}
	if sees, err := o.Service.MaySee(t.Context(), o.users["ann"].GetId(), &apiv1.Reference{Kind: "role-binding", Id: id}); err != nil || !sees {
		t.Errorf("by mail she is told %v, %v", sees, err)
	}
	if !b.GetExpiresAt().AsTime().Equal(tomorrow) || b.GetShortened() != "eun: a day is enough" || b.GetRequest() != "r-1" {
		t.Errorf("%v", b)
	}
	for binding, who := range map[string]string{"b-ann": "ann", "b-bob": "bob"} { // which no request gave
		if err := o.shorten("eun", binding, tomorrow); !problem.Is(err, problem.Forbidden) {
			t.Errorf("what %s has by an administrator's word: %v", who, err)
		}
		if err := o.shorten("dan", binding, tomorrow); err != nil {
			t.Errorf("who could take it away: %v", err)
		}
	}
	r, err := o.Admin().Audit.ListAuditEntries(t.Context(), &apiv1.ListAuditEntriesRequest{Filter: "action=role-binding.shorten"})
	if err != nil || len(r.GetAuditEntries()) < 3 {
		t.Errorf("the record has %v, %v", r.GetAuditEntries(), err)
	}
}

func TestPeopleOfEitherSideShortenACrossing(t *testing.T) {
	o := newOffice(t)
	o.Cross("web", "internet", "business", "vm.start")
	all, err := o.Admin().Crossings.ListCrossings(t.Context(), &apiv1.ListCrossingsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	shorten := func(who string, end time.Time) error {
		_, err := o.As(o.users[who]).Crossings.ShortenCrossing(t.Context(), &apiv1.ShortenCrossingRequest{
			Crossing: all.GetCrossings()[0].GetId(), EndsAt: timestamppb.New(end), Reason: "the migration is done"})
		return err
	}
	if err := shorten("ann", o.now.Add(time.Hour)); !problem.Is(err, problem.Forbidden) {
		t.Errorf("one who asks: %v", err)
	}
	if err := shorten("cho", o.now.AddDate(0, 0, 9)); !problem.Is(err, problem.Invalid) {
		t.Errorf("for longer: %v", err)
	}
	if err := shorten("cho", o.now.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	for who, want := range map[string]bool{"ann": true, "eve": false} {
		user := o.users[who]
		if user == nil {
			user = o.User(who, apiv1.User_PERSON)
		}
		if sees, err := o.Service.MaySee(t.Context(), user.GetId(), &apiv1.Reference{Kind: "crossing", Id: all.GetCrossings()[0].GetId()}); err != nil || sees != want {
			t.Errorf("%s may see it: %v, %v", who, sees, err)
		}
	}
}
