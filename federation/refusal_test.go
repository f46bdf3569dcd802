package federation_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"

	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func vmSample(name int) *apiv1.VMSample {
	return &apiv1.VMSample{VmId: strings.Repeat("v", min(name, 60))}
}

// call is an honest call of a method that a zone may call.
func call(number uint64) *linkv1.CallRequest {
	return &linkv1.CallRequest{
		Call: number, Method: "/naru.api.v1.VMService/GetVM",
		Body: must(proto.Marshal(&apiv1.GetVMRequest{Vm: "web-1"})), DeadlineMs: 1000, Credit: 1,
	}
}

func TestACarelessFrameIsWithheldAndBothSidesAreTold(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	for name, c := range map[string]struct {
		reason  string
		payload []byte
		kind    linkv1.Type
	}{
		"an unknown field": {"UNKNOWN", append(must(proto.Marshal(call(1))), 0xf8, 0x07, 1), linkv1.Type_CALL_REQUEST},
		"a rule that is broken": {"RULES", must(proto.Marshal(&linkv1.StateResync{Reason: strings.Repeat("x", 1025)})),
			linkv1.Type_STATE_RESYNC},
		"a method that is none": {"METHOD", must(proto.Marshal(&linkv1.CallRequest{Call: 9, Method: "/naru.api.v1.VMService/Format", Credit: 1})),
			linkv1.Type_CALL_REQUEST},
		"too large for its type": {"OVERSIZE", must(proto.Marshal(&linkv1.StateResync{Reason: strings.Repeat("x", 9000)})),
			linkv1.Type_STATE_RESYNC},
	} {
		t.Run(name, func(t *testing.T) {
			a.counter++
			f := &linkv1.Frame{Session: a.session, Direction: linkv1.Direction_UP, Counter: a.counter, Type: c.kind, Payload: c.payload, Tag: random(32)}
			if err := a.stream.Send(f); err != nil {
				t.Fatal(err)
			}
			got := receive(t, up.Stream)
			var withheld linkv1.Withheld
			if err := proto.Unmarshal(got.Payload, &withheld); err != nil || got.Type != linkv1.Type_WITHHELD {
				t.Fatalf("the server got %v, %v", got, err)
			}
			digest := sha256.Sum256(c.payload)
			if got.Counter != f.Counter || withheld.Type != c.kind || !bytes.Equal(withheld.Digest, digest[:]) || !strings.HasPrefix(withheld.Reason, c.reason) {
				t.Errorf("the server was told %v of frame %d", &withheld, got.Counter)
			}
			back := receive(t, a.stream)
			var refused linkv1.Refused
			if err := proto.Unmarshal(back.Payload, &refused); err != nil || back.Type != linkv1.Type_REFUSED || refused.Counter != f.Counter {
				t.Fatalf("the agent got %v, %v", back, err)
			}
			if got := s.gauge("naru_broker_refusals_total", "zone=z1", "direction=UP", "reason="+c.reason); got != 1 {
				t.Errorf("counted %v times", got)
			}
		})
	}
	sent := a.send(linkv1.Type_CALL_REQUEST, call(2))
	if got := receive(t, up.Stream); !proto.Equal(got, sent) {
		t.Errorf("afterwards an honest frame came as %v", got)
	}
}

func TestAHostileFrameCutsBothSides(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	honest := must(proto.Marshal(call(1)))
	for name, c := range map[string]struct {
		reason string
		change func(*linkv1.Frame)
	}{
		"fields out of order": {"FORM", func(f *linkv1.Frame) { f.Payload = append(bytes.Clone(honest), 0x08, 1) }},
		"a long varint":       {"FORM", func(f *linkv1.Frame) { f.Payload = append([]byte{0x08, 0x81, 0x00}, honest[2:]...) }},
		"bytes cut short":     {"FORM", func(f *linkv1.Frame) { f.Payload = honest[:len(honest)-1] }},
		"text that is none":   {"FORM", func(f *linkv1.Frame) { f.Payload = append(bytes.Clone(honest), 0x32, 1, 0xff) }},
		"a body in another form": {"FORM", func(f *linkv1.Frame) {
			f.Payload = must(proto.Marshal(&linkv1.CallRequest{Call: 1, Method: call(1).Method, Body: []byte{0x0a, 0x81, 0x00, 'x'}, Credit: 1}))
		}},
		"an unknown type":            {"TYPE", func(f *linkv1.Frame) { f.Type = 99 }},
		"no type":                    {"TYPE", func(f *linkv1.Frame) { f.Type = 0 }},
		"a broker's own type":        {"TYPE", func(f *linkv1.Frame) { f.Type, f.Tag = linkv1.Type_WITHHELD, nil }},
		"what only comes down":       {"DIRECTION", func(f *linkv1.Frame) { f.Type = linkv1.Type_CALL_RESPONSE }},
		"another direction":          {"DIRECTION", func(f *linkv1.Frame) { f.Direction = linkv1.Direction_DOWN }},
		"no direction":               {"DIRECTION", func(f *linkv1.Frame) { f.Direction = 0 }},
		"another session":            {"SESSION", func(f *linkv1.Frame) { f.Session = random(16) }},
		"a session's short name":     {"ENVELOPE", func(f *linkv1.Frame) { f.Session = f.Session[:8] }},
		"no tag":                     {"ENVELOPE", func(f *linkv1.Frame) { f.Tag = nil }},
		"no counter":                 {"ENVELOPE", func(f *linkv1.Frame) { f.Counter = 0 }},
		"something beside the frame": {"ENVELOPE", func(f *linkv1.Frame) { f.ProtoReflect().SetUnknown([]byte{0xf8, 0x07, 1}) }},
	} {
		t.Run(name, func(t *testing.T) {
			a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
			before := s.gauge("naru_broker_refusals_total", "zone=z1", "reason="+c.reason)
			f := a.frame(linkv1.Type_CALL_REQUEST, call(1))
			c.change(f)
			if err := a.stream.Send(f); err != nil {
				t.Fatal(err)
			}
			err := a.ends()
			wantCode(t, err, codes.PermissionDenied, "the agent")
			if !strings.Contains(err.Error(), c.reason) {
				t.Errorf("the agent is told %v", err)
			}
			got, err := up.Stream.Recv()
			wantCode(t, err, codes.PermissionDenied, "the server")
			if got != nil {
				t.Errorf("the server got %v", got)
			}
			if after := s.gauge("naru_broker_refusals_total", "zone=z1", "direction=UP", "reason="+c.reason); after != before+1 {
				t.Errorf("counted %v, then %v", before, after)
			}
		})
	}
	t.Run("a second HELLO", func(t *testing.T) {
		h := s.agentHolder("z1", "a1", time.Now())
		a, _ := s.session(one, h)
		a.send(linkv1.Type_HELLO, hello(h))
		wantCode(t, a.ends(), codes.PermissionDenied, "the agent")
	})
}

func TestWhatTheControlPlaneSendsIsCheckedToo(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	down := func(kind linkv1.Type, payload []byte) *linkv1.Frame {
		return &linkv1.Frame{Session: a.session, Direction: linkv1.Direction_DOWN, Counter: 1, Type: kind, Payload: payload, Tag: random(32)}
	}
	careless := must(proto.Marshal(&linkv1.StateResync{Reason: strings.Repeat("x", 2000)}))
	if err := up.Stream.Send(down(linkv1.Type_STATE_RESYNC, careless)); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, a.stream); got.Type != linkv1.Type_WITHHELD {
		t.Errorf("the agent got %v", got)
	}
	if got := receive(t, up.Stream); got.Type != linkv1.Type_REFUSED {
		t.Errorf("the server got %v", got)
	}
	if err := up.Stream.Send(down(linkv1.Type_SAMPLE_BATCH, nil)); err != nil {
		t.Fatal(err)
	}
	wantCode(t, a.ends(), codes.PermissionDenied, "the agent")
	if got := s.gauge("naru_broker_refusals_total", "zone=z1", "direction=DOWN"); got != 2 {
		t.Errorf("counted %v", got)
	}
}

// P15: what is larger than any frame may be is not even gathered.
func TestP15AFrameLargerThanAnyIsCutOff(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	h := s.agentHolder("z1", "a1", time.Now())
	conn := must(grpc.NewClient("passthrough:///"+s.zoneAddr,
		grpc.WithTransportCredentials(credentials.NewTLS(pki.ClientTLS(h, h.Root, pki.RoleBroker))),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20))))
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := &agent{t: t, stream: must(linkv1.NewZoneLegServiceClient(conn).Connect(ctx)), session: random(16), close: cancel}
	a.send(linkv1.Type_HELLO, hello(h))
	one.next(t)
	f := a.frame(linkv1.Type_CALL_REQUEST, call(1))
	f.Payload = make([]byte, 32<<20)
	_ = a.stream.Send(f) // may fail as the stream is cut meanwhile
	wantCode(t, a.ends(), codes.ResourceExhausted, "the agent")
	s.eventually("counted", func() bool { return s.gauge("naru_broker_refusals_total", "zone=z1", "reason=OVERSIZE") == 1 })
}
