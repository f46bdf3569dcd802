package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func newTestServers(t *testing.T) *servers {
	t.Helper()
	m, err := newMetrics(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newServers(m)
}

func serving(leader bool, revoked ...string) *linkv1.ServerStatus {
	return &linkv1.ServerStatus{Serving: true, Leader: leader, Revoked: revoked}
}

func TestWhoIsChosen(t *testing.T) {
	r := newTestServers(t)
	if r.choose(nil) != nil {
		t.Error("somebody, where there is nobody")
	}
	a, b, c := r.join(t.Context(), "a"), r.join(t.Context(), "b"), r.join(t.Context(), "c")
	if r.choose(nil) != nil {
		t.Error("somebody who has not said that it serves")
	}
	r.update(a, serving(false))
	r.update(b, serving(false))
	r.update(c, &linkv1.ServerStatus{Leader: true}) // and does not serve
	r.count("a", 2)
	r.count("b", 1)
	expect := func(want *server, tried ...string) {
		t.Helper()
		been := map[string]bool{}
		for _, id := range tried {
			been[id] = true
		}
		if got := r.choose(been); got != want {
			t.Errorf("after %v: got %v, want %v", tried, got, want)
		}
	}
	expect(b)
	expect(a, "b")
	expect(nil, "a", "b")
	r.count("b", 2)
	expect(a)
	r.update(c, serving(true))
	r.count("c", 100)
	expect(c)
	expect(a, "c")
	r.leave(c)
	expect(a)
	a.cut(errors.New("gone"))
	expect(b)
}

func TestANewerStreamOfAServerEndsTheOlderAndOnlyThat(t *testing.T) {
	r := newTestServers(t)
	old := r.join(t.Context(), "a")
	r.update(old, serving(true))
	r.count("a", 3)
	young := r.join(t.Context(), "a")
	if context.Cause(old.ctx) != errNewerAnnounce || old.tell(&linkv1.AnnounceResponse{}) {
		t.Error("the older one lives")
	}
	r.update(young, serving(true))
	r.leave(old)
	if r.choose(nil) != young {
		t.Error("the older one's leaving took the newer one away")
	}
	if r.load["a"] != 3 {
		t.Errorf("it has %d sessions", r.load["a"])
	}
	r.count("a", -3)
	if len(r.load) != 0 {
		t.Errorf("what is left: %v", r.load)
	}
}

func TestAServerThatDoesNotListenIsNotWaitedFor(t *testing.T) {
	r := newTestServers(t)
	s := r.join(t.Context(), "a")
	n := 0
	for s.tell(&linkv1.AnnounceResponse{}) {
		if n++; n > 1000 {
			t.Fatal("there is no end to what it is told")
		}
	}
}

func TestRevocationsAreUnited(t *testing.T) {
	r := newTestServers(t)
	a, b := r.join(t.Context(), "a"), r.join(t.Context(), "b")
	expect := func(want bool, zone, agent, when string) {
		t.Helper()
		if r.isRevoked(zone, agent) != want {
			t.Errorf("%s/%s %s: want %v", zone, agent, when, want)
		}
	}
	r.update(a, serving(true, "z1", "z2/a1"))
	r.update(b, serving(false))
	expect(true, "z1", "a7", "whole zone")
	expect(true, "z2", "a1", "one agent")
	expect(false, "z2", "a2", "another agent")
	expect(false, "z", "1/a1", "a name that looks alike")
	r.update(a, serving(true, "z2/a1"))
	expect(false, "z1", "a7", "taken back")
	r.update(b, serving(false, "z3"))
	r.leave(a)
	expect(false, "z2", "a1", "by nobody who is here")
	expect(true, "z3", "a1", "by who is here")
	r.leave(b)
	expect(true, "z3", "a1", "while nobody is here")
	r.update(r.join(t.Context(), "a"), serving(true))
	expect(false, "z3", "a1", "by the next who comes")
}

func TestAQuestionIsAnsweredByWhoWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTestServers(t)
		q := newQueries(r, 10*time.Second, r.metrics)
		ask := func() (<-chan *linkv1.Answer, <-chan error) {
			answers, failures := make(chan *linkv1.Answer, 1), make(chan error, 1)
			go func() {
				a, err := q.ask(t.Context(), "join", &linkv1.Query{})
				answers <- a
				failures <- err
			}()
			return answers, failures
		}
		_, failed := ask()
		if err := <-failed; status.Code(err) != codes.Unavailable {
			t.Errorf("nobody is there: %v", err)
		}

		a := r.join(t.Context(), "a")
		r.update(a, serving(true))
		answers, failed := ask()
		number := (<-a.out).GetQuery().GetQuery()
		q.answer("b", &linkv1.Answer{Query: number, Message: "forged"})
		q.answer("a", &linkv1.Answer{Query: number + 1})
		q.answer("a", &linkv1.Answer{Query: number, Message: "true"})
		q.answer("a", &linkv1.Answer{Query: number, Message: "twice"})
		if got, err := <-answers, <-failed; err != nil || got.Message != "true" {
			t.Errorf("got %v, %v", got, err)
		}

		_, failed = ask()
		q.answer("a", &linkv1.Answer{Query: (<-a.out).GetQuery().GetQuery(), GrpcCode: uint32(codes.NotFound), Message: "no such token"})
		if err := <-failed; status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such token" {
			t.Errorf("a refusal came as %v", err)
		}

		_, failed = ask()
		<-a.out
		began := time.Now()
		if err := <-failed; status.Code(err) != codes.Unavailable || time.Since(began) != 10*time.Second {
			t.Errorf("no answer: %v after %s", err, time.Since(began))
		}

		_, failed = ask()
		<-a.out
		r.leave(a)
		if err := <-failed; status.Code(err) != codes.Unavailable {
			t.Errorf("who was asked has gone: %v", err)
		}
		if len(q.waiting) != 0 {
			t.Errorf("%d are still waited for", len(q.waiting))
		}
	})
}

func TestOnlySoManyQuestionsWait(t *testing.T) {
	r := newTestServers(t)
	q := newQueries(r, time.Second, r.metrics)
	for range maxQueries {
		if _, ok := q.note("a", &linkv1.Query{}); !ok {
			t.Fatal("refused early")
		}
	}
	if _, ok := q.note("a", &linkv1.Query{}); ok {
		t.Error("one more was taken")
	}
}
