package fsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func draftOf(user, id string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: &commandv1.CreateRequest{Request: &apiv1.Request{
		Id: id, Requester: user, RequesterId: "u-" + user, Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business"}}}}
}

// TestDraftsAreBoundedForEachRequesterAndProject, so that a program that runs wild fills neither the state nor the others' lists.
func TestDraftsAreBoundedForEachRequesterAndProject(t *testing.T) {
	p := staffed(t)
	for i := range 100 {
		p.accept(draftOf("ann", fmt.Sprint("ann-", i)))
	}
	if m := p.refuse(problem.TooMany, draftOf("ann", "more")); !strings.Contains(m.GetDetail(), "ann has 100 drafts") || !strings.Contains(m.GetNext(), "--filter approval=draft") {
		t.Errorf("%v", m)
	}
	for n := range 9 {
		name := fmt.Sprint("x", n)
		p.accept(createUser(name))
		for i := range 100 {
			p.accept(draftOf(name, fmt.Sprint(name, "-", i)))
		}
	}
	if m := p.refuse(problem.TooMany, draftOf("bob", "more")); !strings.Contains(m.GetDetail(), "project shop has 1000 drafts") {
		t.Errorf("%v", m)
	}
	p.accept(&commandv1.Command{Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: "ann-0"}}})
	p.accept(draftOf("ann", "more"))
}

func TestWhatWaitsForPeopleIsBoundedForEachRequester(t *testing.T) {
	p := staffed(t)
	for i := range 1000 {
		if i%400 == 0 { // on several days
			p.now = p.now.Add(25 * time.Hour)
		}
		p.submitted(fmt.Sprint("r", i), "review")
	}
	p.draft("more", nil)
	if m := p.refuse(problem.TooMany, p.submission("more", "review")); !strings.Contains(m.GetDetail(), "ann has 1000 requests that wait for a decision") {
		t.Errorf("%v", m)
	}
	p.approve("r0", "bob", "review")
	p.accept(p.submission("more", "review"))
	p.view(func(tx *state.Tx) {
		if n, err := tx.RequestsIn("p-shop"); err != nil || n != (state.Standing{Asked: 1000}) {
			t.Errorf("%v, %v", n, err)
		}
	})
}

// TestAnIdempotencyKeyIsOfWhoeverHasTheId, and not of who gets their name after them.
func TestAnIdempotencyKeyIsOfWhoeverHasTheId(t *testing.T) {
	p := staffed(t)
	keyed := func(id, draft string) *commandv1.Command {
		c := p.by(id, draftOf("ann", draft))
		c.Actor = "user:ann"
		c.Idempotency = &commandv1.Idempotency{Key: "k", RequestHash: make([]byte, 32)}
		return c
	}
	first := p.accept(keyed("u-ann", "a"))
	if again := p.accept(keyed("u-ann", "b")); string(again.GetNoun()) != string(first.GetNoun()) {
		t.Error("the same key of the same user was carried out twice")
	}
	if other := p.accept(keyed("u-bob", "c")); string(other.GetNoun()) == string(first.GetNoun()) {
		t.Error("another of the name was answered with what was the first one's")
	}
}
