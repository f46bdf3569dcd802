package client_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

type (
	watchRequest = apiv1.WatchOperationsRequest
	watchStream  = grpc.ServerStreamingServer[apiv1.WatchOperationsResponse]
)

// operations opens a watch of operations and notes after which revisions it was opened.
func operations(c *client.Client, opened *[]string) client.Open[*apiv1.Operation] {
	return func(ctx context.Context, after string) (func() (client.Change[*apiv1.Operation], error), error) {
		*opened = append(*opened, after)
		s, err := c.Operations.WatchOperations(ctx, &watchRequest{After: after})
		return client.Changes(s, err, func(m *apiv1.WatchOperationsResponse) client.Change[*apiv1.Operation] {
			return client.Change[*apiv1.Operation]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetOperation()}
		})
	}
}

func put(stream watchStream, op *apiv1.Operation) error {
	return stream.Send(&apiv1.WatchOperationsResponse{Type: apiv1.WatchType_PUT, Revision: op.GetRevision(), Operation: op})
}

var errEnough = errors.New("enough")

// until ends a watch at a revision, and notes those that were told.
func until(last string, told *[]string) func(client.Change[*apiv1.Operation]) error {
	return func(ch client.Change[*apiv1.Operation]) error {
		if *told = append(*told, ch.Revision); ch.Revision == last {
			return errEnough
		}
		return nil
	}
}

func TestAWatchGoesOnWhereItWasCut(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{watch: func(r *watchRequest, stream watchStream) error {
		switch r.GetAfter() {
		case "": // the stream ends without a word
			return errors.Join(put(stream, &apiv1.Operation{Revision: "7-1"}), put(stream, &apiv1.Operation{Revision: "7-2"}))
		case "7-2": // the server has no leader any more
			return errors.Join(put(stream, &apiv1.Operation{Revision: "7-3"}), problem.ToStatus(problem.New(problem.Unavailable, "no leader", "")))
		}
		return put(stream, &apiv1.Operation{Revision: "7-4"})
	}})
	var opened, told []string
	breaks := 0
	err := client.Watch(soon(t), operations(a.connect(t, client.Config{}, s), &opened), until("7-4", &told), func(error) error {
		breaks++
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if !slices.Equal(opened, []string{"", "7-2", "7-3"}) || !slices.Equal(told, []string{"7-1", "7-2", "7-3", "7-4"}) || breaks != 2 {
		t.Fatalf("opened after %q, told %q, %d breaks", opened, told, breaks)
	}
}

func TestAWatchIsTakenUpAtAnotherServer(t *testing.T) {
	a := newAuthority(t)
	asked := make(chan *server, 1)
	one, two := &server{}, &server{}
	for _, s := range []*server{one, two} {
		s.watch = func(r *watchRequest, stream watchStream) error {
			if r.GetAfter() == "7-1" {
				return put(stream, &apiv1.Operation{Revision: "7-2"})
			}
			asked <- s
			if err := put(stream, &apiv1.Operation{Revision: "7-1"}); err != nil {
				return err
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		a.serve(t, s)
	}
	var opened, told []string
	tell := until("7-2", &told)
	err := client.Watch(soon(t), operations(a.connect(t, client.Config{}, one, two), &opened), func(ch client.Change[*apiv1.Operation]) error {
		if ch.Revision == "7-1" {
			go (<-asked).grpc.Stop()
		}
		return tell(ch)
	}, nil)
	if !errors.Is(err, errEnough) || !slices.Equal(told, []string{"7-1", "7-2"}) {
		t.Fatalf("told %q, %v", told, err)
	}
}

func TestAWatchBeginsAnewWhereItsRevisionIsNoLongerKept(t *testing.T) {
	a := newAuthority(t)
	n := 0
	s := a.serve(t, &server{watch: func(r *watchRequest, stream watchStream) error {
		switch n++; n {
		case 1:
			return put(stream, &apiv1.Operation{Revision: "7-1"})
		case 2:
			return problem.ToStatus(problem.New(problem.Gone, "the changes after revision 7-1 are no longer kept", ""))
		}
		return put(stream, &apiv1.Operation{Revision: "7-9"})
	}})
	var opened, told []string
	err := client.Watch(soon(t), operations(a.connect(t, client.Config{}, s), &opened), until("7-9", &told), nil)
	if !errors.Is(err, errEnough) || !slices.Equal(opened, []string{"", "7-1", ""}) {
		t.Fatalf("opened after %q, %v", opened, err)
	}
}

func TestAWatchThatIsRefusedEnds(t *testing.T) {
	a := newAuthority(t)
	for _, code := range []problem.Code{problem.Invalid, problem.Forbidden, problem.Internal, problem.NotFound} {
		s := a.serve(t, &server{watch: func(*watchRequest, watchStream) error { return problem.ToStatus(problem.New(code, "no", "")) }})
		var opened, told []string
		err := client.Watch(soon(t), operations(a.connect(t, client.Config{}, s), &opened), until("", &told), nil)
		if !problem.Is(problem.From(err), code) || len(opened) != 1 {
			t.Errorf("%s: opened %d times, %v", code, len(opened), err)
		}
	}
}

func TestWhoIsToldOfABreakMayEndTheWatch(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{})
	s.grpc.Stop()
	var opened, told []string
	err := client.Watch(t.Context(), operations(a.connect(t, client.Config{}, s), &opened), until("", &told), func(err error) error { return err })
	if !problem.Is(problem.From(err), problem.Unavailable) || len(opened) != 1 {
		t.Fatalf("opened %d times, %v", len(opened), err)
	}
}

func operation(revision string, done bool, steps ...string) *apiv1.Operation {
	op := &apiv1.Operation{Id: "op-1", Kind: "vm.create", Target: &apiv1.Reference{Name: "web-1"}, Revision: revision, Done: done}
	for _, s := range steps {
		op.Steps = append(op.Steps, &apiv1.Operation_Step{Name: s})
	}
	return op
}

func TestWaitSurvivesTheDeathOfTheServerItAsked(t *testing.T) {
	a := newAuthority(t)
	asked := make(chan *server, 1)
	one, two := &server{}, &server{}
	for _, s := range []*server{one, two} {
		s.watch = func(r *watchRequest, stream watchStream) error {
			if r.GetFilter() != "id=op-1" {
				return problem.ToStatus(problem.New(problem.Invalid, "the filter is "+r.GetFilter(), ""))
			}
			if r.GetAfter() != "" {
				return put(stream, operation("7-3", true, "accepted", "placed", "usable"))
			}
			asked <- s
			if err := put(stream, operation("7-2", false, "accepted", "placed")); err != nil {
				return err
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		a.serve(t, s)
	}
	var told []string
	done, err := a.connect(t, client.Config{}, one, two).Wait(soon(t), operation("7-1", false, "accepted"), func(op *apiv1.Operation) {
		told = append(told, op.GetRevision())
		if op.GetRevision() == "7-2" {
			go (<-asked).grpc.Stop()
		}
	})
	if err != nil || !done.GetDone() || !slices.Equal(told, []string{"7-1", "7-2", "7-3"}) {
		t.Fatalf("told %q, done %v, %v", told, done.GetDone(), err)
	}
}

func TestWhoWaitsIsToldOnceWhyNothingIsHeard(t *testing.T) {
	a := newAuthority(t)
	var asked atomic.Int32
	s := a.serve(t, &server{watch: func(_ *watchRequest, stream watchStream) error {
		if asked.Add(1) < 4 {
			return problem.ToStatus(problem.New(problem.LinkDown, "the zone has no session", ""))
		}
		return put(stream, operation("7-2", true, "accepted", "usable"))
	}})
	var why []error
	ctx := client.TellRepeated(soon(t), func(err error) { why = append(why, err) })
	if _, err := a.connect(t, client.Config{}, s).Wait(ctx, operation("7-1", false), func(*apiv1.Operation) {}); err != nil {
		t.Fatal(err)
	}
	if len(why) != 1 || !problem.Is(problem.FromStatus(why[0]), problem.LinkDown) {
		t.Fatalf("told %v", why)
	}
}

// TestWhatAZoneDoesByItselfIsWaitedFor: there is no watch of it while the zone is cut off, and it has no revision.
func TestWhatAZoneDoesByItselfIsWaitedFor(t *testing.T) {
	a := newAuthority(t)
	var asked atomic.Int32
	s := a.serve(t, &server{
		watch: func(*watchRequest, watchStream) error {
			return problem.ToStatus(problem.New(problem.LinkDown, "the zone has no session", ""))
		},
		operation: func() (*apiv1.Operation, error) {
			if asked.Add(1) < 3 {
				return operation("", false, "overridden"), nil
			}
			return operation("", true, "overridden", "stopped"), nil
		},
	})
	var why []error
	var told []int
	ctx := client.TellRepeated(soon(t), func(err error) { why = append(why, err) })
	done, err := a.connect(t, client.Config{}, s).Wait(ctx, operation("", false, "overridden"), func(op *apiv1.Operation) {
		told = append(told, len(op.GetSteps()))
	})
	if err != nil || !done.GetDone() || !slices.Equal(told, []int{1, 2}) || why != nil {
		t.Fatalf("told %v and %v, done %v, %v", told, why, done.GetDone(), err)
	}
}

func TestWaitReturnsWhyAnOperationFailed(t *testing.T) {
	a := newAuthority(t)
	failed := operation("7-2", true)
	failed.Error = problem.Of(problem.New(problem.NoHostFits, "4 hosts looked at", "Choose a smaller flavor."))
	s := a.serve(t, &server{watch: func(_ *watchRequest, stream watchStream) error { return put(stream, failed) }})
	c := a.connect(t, client.Config{}, s)
	if _, err := c.Wait(soon(t), operation("7-1", false), func(*apiv1.Operation) {}); !problem.Is(err, problem.NoHostFits) {
		t.Fatalf("%v", err)
	}
	if _, err := c.Wait(soon(t), failed, func(*apiv1.Operation) {}); !problem.Is(err, problem.NoHostFits) {
		t.Fatalf("of an operation that had failed before: %v", err)
	}
}

func TestWaitEndsWhereTheOperationIsNoLongerKept(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{watch: func(_ *watchRequest, stream watchStream) error {
		return stream.Send(&apiv1.WatchOperationsResponse{Type: apiv1.WatchType_DELETE, Operation: operation("7-2", false)})
	}})
	if _, err := a.connect(t, client.Config{}, s).Wait(soon(t), operation("7-1", false), func(*apiv1.Operation) {}); !problem.Is(err, problem.NotFound) {
		t.Fatalf("%v", err)
	}
}

func TestWaitIsNotEndedByTheDeletionOfAnotherOperation(t *testing.T) {
	a := newAuthority(t)
	other := operation("7-2", true)
	other.Id = "op-2"
	s := a.serve(t, &server{watch: func(_ *watchRequest, stream watchStream) error {
		if err := stream.Send(&apiv1.WatchOperationsResponse{Type: apiv1.WatchType_DELETE, Operation: other}); err != nil {
			return err
		}
		return put(stream, operation("7-3", true, "usable"))
	}})
	done, err := a.connect(t, client.Config{}, s).Wait(soon(t), operation("7-1", false), func(*apiv1.Operation) {})
	if err != nil || done.GetRevision() != "7-3" {
		t.Fatalf("%v, %v", done, err)
	}
}

func TestWhoStopsWaitingIsToldHowToGoOn(t *testing.T) {
	a := newAuthority(t)
	watched := make(chan struct{})
	s := a.serve(t, &server{watch: func(_ *watchRequest, stream watchStream) error {
		close(watched)
		<-stream.Context().Done()
		return stream.Context().Err()
	}})
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		<-watched
		interrupt()
	}()
	_, err := a.connect(t, client.Config{}, s).Wait(ctx, operation("7-1", false), func(*apiv1.Operation) {})
	if !problem.Is(err, problem.Cancelled) || !strings.Contains(problem.Of(err).GetNext(), "naru operation wait op-1") {
		t.Fatalf("%v", problem.Of(err))
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = a.connect(t, client.Config{}, s).Wait(late, operation("7-1", false), func(*apiv1.Operation) {})
	if !problem.Is(err, problem.Timeout) || !strings.Contains(problem.Of(err).GetNext(), "naru operation wait op-1") {
		t.Fatalf("%v", problem.Of(err))
	}
}
