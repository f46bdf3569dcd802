package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestACallTakesItsAllowedMetadataAlongAndNothingElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		var got *Call
		var left time.Duration
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			got = c
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return echo(ctx, c)
		})
		var crossed []byte
		w.path = func(_ context.Context, _ int, zone, hub *MemoryStream) {
			relay(zone, hub, func(f *frame) ([]*frame, []*frame) {
				crossed = append(crossed, f.Payload...)
				return broker(linkv1.Direction_UP)(f)
			}, broker(linkv1.Direction_DOWN))
		}
		w.build().start(t)
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer s3cret-token", "idempotency-key", "k1",
			"if-match", "1-2", "last-event-id", "1-1", "accept-language", "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7,ja;q=0.6,zh-TW;q=0.5,zh;q=0.4",
			"trace-id", "4bf92f3577b34da6a3ce929d0e0e4736", MDClient, "10.91.0.5/32", "cookie", "all of it")
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := w.zone.Invoke(ctx, getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{}); err != nil {
			t.Fatal(err)
		}
		if got.Credential != "s3cret-token" || got.IdempotencyKey != "k1" || got.IfMatch != "1-2" || got.LastEventID != "1-1" ||
			got.Language != "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7,ja;q=0.6,zh-TW;q=0.5" || got.TraceID == "" || got.Client != "10.91.0.5/32" || got.Peer.Zone != zoneID {
			t.Errorf("%+v", got)
		}
		if left != 5*time.Second {
			t.Errorf("the handler had %v", left)
		}
		for _, secret := range []string{"s3cret", "all of it"} {
			if strings.Contains(string(crossed), secret) {
				t.Errorf("%q crossed in the open", secret)
			}
		}
	})
}

func TestWhatCannotBeSentIsRefusedAtHome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.start(t)
		md := func(k, v string) context.Context { return metadata.AppendToOutgoingContext(t.Context(), k, v) }
		for _, c := range []struct {
			name   string
			ctx    context.Context
			method string
			code   problem.Code
		}{
			{"a method that no zone may call", t.Context(), "/naru.api.v1.ZoneService/CreateZone", problem.Forbidden},
			{"a method of nobody's", t.Context(), "/x.Y/Z", problem.Forbidden},
			{"a password", md("authorization", "Basic YTpi"), getVM, problem.Unauthenticated},
			{"a token without end", md("authorization", "Bearer "+strings.Repeat("x", 4096)), getVM, problem.Unauthenticated},
			{"a key without end", md("idempotency-key", strings.Repeat("x", 129)), getVM, problem.Invalid},
		} {
			err := w.zone.Invoke(c.ctx, c.method, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{})
			if !problem.Is(problem.FromStatus(err), c.code) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		large := &apiv1.CreateVMRequest{Vm: &apiv1.VM{UserData: strings.Repeat("x", 300<<10)}}
		err := w.zone.Invoke(t.Context(), "/naru.api.v1.VMService/CreateVM", large, &apiv1.CreateVMResponse{})
		if !problem.Is(problem.FromStatus(err), problem.TooLarge) {
			t.Error(err)
		}
		if len(w.live().live) != 0 {
			t.Errorf("%d calls are left", len(w.live().live))
		}
	})
}

func (w *world) live() *callTable { return w.zone.calls.Load() }

func TestAHandlersProblemReachesTheCaller(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		var answer error
		w.calls = handlerFunc(func(context.Context, *Call) error { return answer })
		w.path = brokered
		w.build().start(t)
		for _, c := range []struct {
			answer error
			code   problem.Code
			has    string
		}{
			{problem.New(problem.NotFound, "no VM web-1", "List them.").With("vm", "unknown"), problem.NotFound, "no VM web-1"},
			{problem.ToStatus(problem.New(problem.Conflict, "changed", "")), problem.Conflict, "changed"},
			{errors.New("SQLITE_CORRUPT in /var/lib/naru"), problem.Internal, ""},
			{problem.New(problem.Invalid, strings.Repeat("나", 9000), ""), problem.Invalid, "나"},
			{nil, problem.Internal, ""}, // a unary call without an answer
		} {
			answer = c.answer
			err := problem.From(w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{}))
			if err.Code() != c.code || !strings.Contains(err.Problem.Detail, c.has) || strings.Contains(err.Error(), "SQLITE") {
				t.Errorf("%v came as %v", c.code, err.Problem)
			}
		}
	})
}

func TestACallWithoutASessionFailsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{})
		if !problem.Is(problem.FromStatus(err), problem.LinkDown) || !strings.Contains(err.Error(), "was not sent") {
			t.Error(err)
		}
		if w.zone.Connected() {
			t.Error("connected without a session")
		}
	})
}

func TestACallThatTheSessionOutlivesNotEndsAsUnknownWhereItWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		served := make(chan error, 2)
		w.calls = handlerFunc(func(ctx context.Context, _ *Call) error {
			<-ctx.Done()
			served <- context.Cause(ctx)
			return ctx.Err()
		})
		w.build().start(t)
		writes, reads := make(chan error, 1), make(chan error, 1)
		go func() {
			writes <- w.zone.Invoke(t.Context(), apiv1.VMService_StartVM_FullMethodName, &apiv1.StartVMRequest{Vm: "web-1"}, &apiv1.StartVMResponse{})
		}()
		go func() {
			reads <- w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{})
		}()
		synctest.Wait()
		w.hub.EndAll(CodeNoLeader, "no leader")
		err := problem.From(<-writes)
		if err.Code() != problem.LinkDown || !strings.Contains(err.Problem.Detail, "unknown") || !strings.Contains(err.Problem.Next, "Idempotency-Key") {
			t.Error(err.Problem)
		}
		err = problem.From(<-reads)
		if err.Code() != problem.LinkDown || !strings.Contains(err.Problem.Detail, "broke") || strings.Contains(err.Problem.String(), "done") {
			t.Error("of a read it is said:", err.Problem)
		}
		for range 2 {
			if <-served == nil {
				t.Error("the handler was not told")
			}
		}
	})
}

func TestACancelledCallStopsItsHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		var running atomic.Int32
		w.calls = handlerFunc(func(ctx context.Context, _ *Call) error {
			running.Add(1)
			defer running.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		})
		w.path = brokered
		w.build().start(t)
		for _, c := range []struct {
			end  func(context.Context) (context.Context, context.CancelFunc)
			code problem.Code
		}{
			{func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return ctx, cancel
			}, problem.Cancelled},
			{func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Second)
			}, problem.Timeout},
		} {
			ctx, cancel := c.end(t.Context())
			err := w.zone.Invoke(ctx, getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{})
			if !problem.Is(problem.FromStatus(err), c.code) {
				t.Errorf("%s: %v", c.code, err)
			}
			synctest.Wait()
			if n := running.Load(); n != 0 || len(w.live().live) != 0 {
				t.Errorf("%s: %d handlers run, %d calls live", c.code, n, len(w.live().live))
			}
			cancel()
		}
	})
}

func TestAUnaryCallWithoutADeadlineGetsOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.calls = handlerFunc(func(ctx context.Context, _ *Call) error { <-ctx.Done(); return ctx.Err() })
		w.build().start(t)
		began := time.Now()
		err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{})
		if !problem.Is(problem.FromStatus(err), problem.Timeout) || time.Since(began) != unaryTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func watch(ctx context.Context, w *world) (apiv1.VMService_WatchVMsClient, error) {
	return apiv1.NewVMServiceClient(w.zone).WatchVMs(ctx, &apiv1.WatchVMsRequest{})
}

func TestAStreamCarriesItsMessagesInOrderAndItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			for i := range 100 {
				m := &apiv1.WatchVMsResponse{Revision: fmt.Sprint(i)}
				if err := c.Send(ctx, must(proto.Marshal(m))); err != nil {
					return err
				}
			}
			if c.LastEventID == "bad" {
				return problem.New(problem.Gone, "compacted", "List again.")
			}
			return nil
		})
		w.path = brokered
		w.build().start(t)
		for _, last := range []string{"", "bad"} {
			stream, err := watch(metadata.AppendToOutgoingContext(t.Context(), "last-event-id", last), w)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				m, err := stream.Recv()
				if err != nil || m.Revision != fmt.Sprint(i) {
					t.Fatalf("message %d: %v, %v", i, m, err)
				}
			}
			_, err = stream.Recv()
			if last == "" && err != io.EOF || last != "" && !problem.Is(problem.FromStatus(err), problem.Gone) {
				t.Errorf("the end is %v", err)
			}
			if _, again := stream.Recv(); again != err {
				t.Errorf("the end is %v, and then %v", err, again)
			}
		}
	})
}

func TestASlowCallerHoldsUpOnlyItsOwnStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		var sent atomic.Int32
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			if !c.Streams {
				return echo(ctx, c)
			}
			for {
				if err := c.Send(ctx, nil); err != nil {
					return err
				}
				sent.Add(1)
			}
		})
		w.build().start(t)
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := watch(ctx, w)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := sent.Load(); n != streamCredit {
			t.Errorf("%d messages were sent to a caller that takes none", n)
		}
		if err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{}); err != nil {
			t.Error(err)
		}
		for range streamCredit {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := sent.Load(); n != 2*streamCredit {
			t.Errorf("%d messages were sent after %d were taken", n, streamCredit)
		}
		// The caller goes away and never receives again.
		cancel()
		synctest.Wait()
		if n := len(w.live().live); n != 0 {
			t.Errorf("%d calls live", n)
		}
	})
}

func TestAStreamThatNeverBeginsTakesNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		w.start(t)
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := w.zone.NewStream(ctx, &apiv1.VMService_ServiceDesc.Streams[0], "/naru.api.v1.VMService/WatchVMs"); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if n := len(w.live().live); n != 0 {
			t.Errorf("%d calls live", n)
		}
		if _, err := w.zone.NewStream(t.Context(), &apiv1.VMService_ServiceDesc.Streams[0], getVM); !problem.Is(problem.FromStatus(err), problem.Unsupported) {
			t.Error(err)
		}
	})
}

func TestCallsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		var mu sync.Mutex
		running, most := 0, 0
		enter := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			running += n
			most = max(most, running)
		}
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			enter(1)
			defer enter(-1)
			time.Sleep(time.Second)
			return echo(ctx, c)
		})
		w.build().start(t)
		results := make(chan error)
		for range maxCalls + 50 {
			go func() {
				results <- w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{})
			}()
		}
		served, refused := 0, 0
		for range maxCalls + 50 {
			if err := <-results; err == nil {
				served++
			} else if problem.Is(problem.FromStatus(err), problem.TooMany) {
				refused++
			}
		}
		if served != maxCalls || refused != 50 || most != maxCalls {
			t.Errorf("%d served, %d refused, %d at once", served, refused, most)
		}
	})
}

// P15: a zone that goes on asking and reads no answer is cut off, before what it does not read fills the control plane.
func TestP15AnswersThatAreNotReadAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		var served atomic.Int32
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			served.Add(1)
			return echo(ctx, c)
		})
		w.path = func(ctx context.Context, _ int, zone, hub *MemoryStream) {
			relay(zone, hub, pass, func(f *frame) ([]*frame, []*frame) {
				if f.Type == linkv1.Type_CALL_RESPONSE {
					<-ctx.Done() // nobody reads on
				}
				return pass(f)
			})
		}
		w.build()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ends := make(chan error, 1)
		go func() {
			_, hub := w.once(ctx)
			ends <- hub
		}()
		synctest.Wait()
		calls := w.live()
		method, _ := atEnd().Method(getVM)
		for range 4 * maxCalls {
			c, err := calls.begin(method, 1)
			if err != nil {
				break // the session is over
			}
			if err := calls.request(t.Context(), c, nil, 1); err != nil {
				break
			}
			calls.finish(c, nil) // it does not keep to its own bound
		}
		synctest.Wait()
		if n := served.Load(); n > 2*maxCalls+10 {
			t.Errorf("%d calls were carried out, no answer of which was read", n)
		}
		cancel()
		if err := <-ends; !errors.Is(err, ErrProtocol) {
			t.Errorf("the hub ended with %v", err)
		}
	})
}

func TestAnAnswerTooLargeForAFrameFailsItsCallOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
			if c.Method != getVM {
				return c.Send(ctx, must(proto.Marshal(&apiv1.ListVMsResponse{NextPageToken: strings.Repeat("x", 4<<20)})))
			}
			return echo(ctx, c)
		})
		w.build().start(t)
		err := w.zone.Invoke(t.Context(), "/naru.api.v1.VMService/ListVMs", &apiv1.ListVMsRequest{}, &apiv1.ListVMsResponse{})
		if !problem.Is(problem.FromStatus(err), problem.TooLarge) {
			t.Error(err)
		}
		if err := w.zone.Invoke(t.Context(), getVM, &apiv1.GetVMRequest{Vm: "web-1"}, &apiv1.GetVMResponse{}); err != nil {
			t.Error(err)
		}
	})
}
