package wire

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const getVM = "/naru.api.v1.VMService/GetVM"

func newChecker(t testing.TB, seat Seat) *Checker {
	t.Helper()
	c, err := NewChecker(seat)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func validPayloads() map[linkv1.Type]proto.Message {
	key, nonce, digest := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)
	withheld := &linkv1.Withheld{Type: linkv1.Type_SAMPLE_BATCH, Digest: digest, Reason: "RULES: a rule is broken"}
	return map[linkv1.Type]proto.Message{
		linkv1.Type_HELLO:        &linkv1.Hello{Schema: 1, Key: key, Nonce: nonce, Chain: [][]byte{{1}}, Incarnation: "i"},
		linkv1.Type_WELCOME:      &linkv1.Welcome{Schema: 1, Key: key, Nonce: nonce, Chain: [][]byte{{1}}, Epoch: 1},
		linkv1.Type_PROOF:        &linkv1.Proof{Signature: []byte{1}},
		linkv1.Type_STATE_CHUNK:  chunk(1),
		linkv1.Type_STATE_ACK:    &linkv1.StateAck{Point: &linkv1.StateAckPoint{Epoch: 1, Revision: 2}},
		linkv1.Type_STATE_RESYNC: &linkv1.StateResync{Reason: "gap"},
		linkv1.Type_JOURNAL_BATCH: &linkv1.JournalBatch{Origin: "i", Stream: "zone", Entries: []*linkv1.JournalEntry{
			{Sequence: 1, Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{Id: "e"}}}}},
		linkv1.Type_JOURNAL_ACK:   &linkv1.JournalAck{Points: []*linkv1.JournalPoint{{Origin: "i", Stream: "zone", Sequence: 1}}},
		linkv1.Type_CALL_REQUEST:  request(getVM, &apiv1.GetVMRequest{Vm: "web-1"}),
		linkv1.Type_CALL_RESPONSE: response(getVM, &apiv1.GetVMResponse{Vm: &apiv1.VM{Name: "web-1"}}),
		linkv1.Type_CALL_CANCEL:   &linkv1.CallCancel{Call: 1},
		linkv1.Type_CALL_CREDIT:   &linkv1.CallCredit{Call: 1, Messages: 5},
		linkv1.Type_SAMPLE_BATCH:  &linkv1.SampleBatch{Hosts: []*apiv1.HostSample{{Host: "kvm-1", CpuRatio: 0.5}}},
		linkv1.Type_GOODBYE:       &linkv1.Goodbye{Code: "SHUTTING_DOWN"},
		linkv1.Type_PING:          &linkv1.Ping{},
		linkv1.Type_WITHHELD:      withheld,
		linkv1.Type_REFUSED:       &linkv1.Refused{Counter: 4, Withheld: withheld},
	}
}

func request(method string, m proto.Message) *linkv1.CallRequest {
	b, _ := proto.Marshal(m)
	return &linkv1.CallRequest{Call: 1, Method: method, Body: b, Credit: 1}
}

func response(method string, m proto.Message) *linkv1.CallResponse {
	b, _ := proto.Marshal(m)
	return &linkv1.CallResponse{Call: 1, Method: method, Body: b, End: true}
}

func directions(t linkv1.Type) []linkv1.Direction {
	var found []linkv1.Direction
	for _, d := range []linkv1.Direction{linkv1.Direction_UP, linkv1.Direction_DOWN} {
		if rows()[t].travels(d) {
			found = append(found, d)
		}
	}
	return found
}

func whole(t testing.TB, kind linkv1.Type, d linkv1.Direction, m proto.Message) *linkv1.Frame {
	f := frame(t, kind, d, m)
	if kind == linkv1.Type_REFUSED {
		f.Counter = 0
	}
	return f
}

func TestEveryTypePassesInItsDirectionsAndNoOther(t *testing.T) {
	payloads := validPayloads()
	if len(payloads) != len(linkv1.Type_name)-1 || len(rows()) != len(payloads) {
		t.Fatalf("the table has %d types, this test %d, the enum %d", len(rows()), len(payloads), len(linkv1.Type_name)-1)
	}
	for _, seat := range []Seat{AtBroker, AtEnd} {
		c := newChecker(t, seat)
		for kind, m := range payloads {
			for _, d := range []linkv1.Direction{linkv1.Direction_UP, linkv1.Direction_DOWN} {
				f := whole(t, kind, d, m)
				checked, refusal := c.Check(f, d)
				allowed := rows()[kind].travels(d) && !(seat == AtBroker && rows()[kind].broker)
				if allowed != (refusal == nil) {
					t.Errorf("seat %d, %s %s: %v", seat, kind, d, refusal)
				}
				if refusal != nil && !refusal.Hostile {
					t.Errorf("seat %d, %s %s was refused, and not as hostile: %v", seat, kind, d, refusal)
				}
				if allowed && seat == AtEnd && !proto.Equal(checked.Message, m) {
					t.Errorf("%s came out as %v", kind, checked.Message)
				}
				if refusal == nil && checked.Class != rows()[kind].class {
					t.Errorf("%s is of class %s", kind, checked.Class)
				}
			}
		}
	}
}

func TestRefusalsSayWhetherTheyAreHostile(t *testing.T) {
	valid := validPayloads()
	up, down := linkv1.Direction_UP, linkv1.Direction_DOWN
	change := func(kind linkv1.Type, f func(*linkv1.Frame)) *linkv1.Frame {
		fr := whole(t, kind, directions(kind)[0], valid[kind])
		f(fr)
		return fr
	}
	call := func(m proto.Message) *linkv1.Frame {
		if r, ok := m.(*linkv1.CallRequest); ok {
			return frame(t, linkv1.Type_CALL_REQUEST, up, r)
		}
		return frame(t, linkv1.Type_CALL_RESPONSE, down, m)
	}
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1)
	for _, c := range []struct {
		name    string
		f       *linkv1.Frame
		reason  Reason
		hostile bool
	}{
		{"an unknown type", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Type = 99 }), ReasonType, true},
		{"no type", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Type = 0 }), ReasonType, true},
		{"a short session", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Session = f.Session[1:] }), ReasonEnvelope, true},
		{"no tag", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Tag = nil }), ReasonEnvelope, true},
		{"a tag on HELLO", change(linkv1.Type_HELLO, func(f *linkv1.Frame) { f.Tag = make([]byte, tagSize) }), ReasonEnvelope, true},
		{"counter zero", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Counter = 0 }), ReasonEnvelope, true},
		{"an unknown field around", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.ProtoReflect().SetUnknown(unknown) }), ReasonEnvelope, true},
		{"another direction than it says", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Direction = down }), ReasonDirection, true},
		{"no direction", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Direction = 0 }), ReasonDirection, true},
		{"bytes that are no message", change(linkv1.Type_GOODBYE, func(f *linkv1.Frame) { f.Payload = []byte{0xff} }), ReasonForm, true},
		{"fields out of order", change(linkv1.Type_GOODBYE, func(f *linkv1.Frame) {
			f.Payload = []byte{2<<3 | 2, 1, 'r', 1<<3 | 2, 1, 'c'}
		}), ReasonForm, true},
		{"an unknown field within", change(linkv1.Type_GOODBYE, func(f *linkv1.Frame) { f.Payload = append(f.Payload, unknown...) }), ReasonUnknown, false},
		{"something in a ping", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Payload = unknown }), ReasonUnknown, false},
		{"too large", change(linkv1.Type_PING, func(f *linkv1.Frame) { f.Payload = make([]byte, 17) }), ReasonOversize, false},
		{"a broken rule", frame(t, linkv1.Type_GOODBYE, up, &linkv1.Goodbye{Code: strings.Repeat("x", 65)}), ReasonRules, false},
		{"a chunk of too many objects", frame(t, linkv1.Type_STATE_CHUNK, up, chunk(129)), ReasonRules, false},
		{"a journal entry without a body", frame(t, linkv1.Type_JOURNAL_BATCH, up, &linkv1.JournalBatch{Origin: "i", Stream: "s",
			Entries: []*linkv1.JournalEntry{{Sequence: 1}}}), ReasonRules, false},
		{"a method that does not exist", call(request("/naru.api.v1.VMService/Nothing", &apiv1.GetVMRequest{Vm: "a"})), ReasonMethod, false},
		{"a method of another package", call(request("/grpc.health.v1.Health/Check", &apiv1.GetVMRequest{})), ReasonMethod, false},
		{"a method that no zone may call", call(request("/naru.api.v1.ZoneService/CreateZone", &apiv1.CreateZoneRequest{})), ReasonMethod, false},
		{"a body of another type", call(request(getVM, &linkv1.StateAckPoint{Epoch: 1})), ReasonForm, true},
		{"a body that breaks a rule", call(request(getVM, &apiv1.GetVMRequest{})), ReasonRules, false},
		{"an internal field asked", call(request("/naru.api.v1.VMService/CreateVM", &apiv1.CreateVMRequest{Vm: &apiv1.VM{Force: true}})), ReasonInternal, false},
		{"an internal field answered", call(response(getVM, &apiv1.GetVMResponse{Vm: &apiv1.VM{Generation: &apiv1.Generation{Epoch: 1}}})), ReasonInternal, false},
		{"an answer to a method that no zone may call", call(response("/naru.api.v1.ZoneService/CreateZone", &apiv1.CreateZoneResponse{})), ReasonMethod, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := up
			if c.f.Type == linkv1.Type_CALL_RESPONSE {
				d = down
			}
			_, r := newChecker(t, AtBroker).Check(c.f, d)
			if r == nil {
				t.Fatal("it passed")
			}
			if r.Reason != c.reason || r.Hostile != c.hostile {
				t.Errorf("hostile %v, %v; want hostile %v, %s", r.Hostile, r, c.hostile, c.reason)
			}
		})
	}
}

func TestAnEndOfAStreamNeedsNoBody(t *testing.T) {
	m := &linkv1.CallResponse{Call: 1, Method: getVM, End: true, Error: &apiv1.Problem{Code: "NOT_FOUND"}, GrpcCode: 5}
	checked, r := newChecker(t, AtBroker).Check(frame(t, linkv1.Type_CALL_RESPONSE, linkv1.Direction_DOWN, m), linkv1.Direction_DOWN)
	if r != nil || checked.Method.Name != getVM {
		t.Errorf("%v %v", checked, r)
	}
}

func TestMethodsCarryTheirEdge(t *testing.T) {
	c := newChecker(t, AtEnd)
	m, ok := c.Method("/naru.api.v1.VMService/WatchVMs")
	if !ok || !m.Streams || m.Edge != apiv1.Edge_EDGE_CENTRAL {
		t.Errorf("WatchVMs is %+v", m)
	}
	if m, ok := c.Method(getVM); !ok || m.Streams || m.Edge != apiv1.Edge_EDGE_LOCAL_READ {
		t.Errorf("GetVM is %+v", m)
	}
	if _, ok := c.Method("/naru.api.v1.ServerService/ListServers"); ok {
		t.Error("a zone may list servers")
	}
}

func TestAWithheldFrameStandsInTheRefusedOnesPlace(t *testing.T) {
	broker, end := newChecker(t, AtBroker), newChecker(t, AtEnd)
	entries := func(n int) *linkv1.JournalBatch {
		b := &linkv1.JournalBatch{Origin: "i", Stream: "zone"}
		for i := range n {
			b.Entries = append(b.Entries, &linkv1.JournalEntry{Sequence: uint64(7 + i)})
		}
		return b
	}
	for _, c := range []struct {
		name  string
		f     *linkv1.Frame
		entry *linkv1.JournalPoint
		call  uint64
	}{
		{"one entry is named", frame(t, linkv1.Type_JOURNAL_BATCH, linkv1.Direction_UP, entries(1)),
			&linkv1.JournalPoint{Origin: "i", Stream: "zone", Sequence: 7}, 0},
		{"of two entries none is named", frame(t, linkv1.Type_JOURNAL_BATCH, linkv1.Direction_UP, entries(2)), nil, 0},
		{"a call is named", frame(t, linkv1.Type_CALL_REQUEST, linkv1.Direction_UP, &linkv1.CallRequest{Call: 9, Method: "/x/Y"}), nil, 9},
		{"an answer is named", frame(t, linkv1.Type_CALL_RESPONSE, linkv1.Direction_DOWN, &linkv1.CallResponse{Call: 9, Method: "/x/Y"}), nil, 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, refusal := broker.Check(c.f, c.f.Direction)
			if refusal == nil || refusal.Hostile {
				t.Fatalf("refusal %v", refusal)
			}
			withheld, refused, err := broker.Withhold(c.f, refusal)
			if err != nil {
				t.Fatal(err)
			}
			forward, r := end.Check(withheld, c.f.Direction)
			if r != nil {
				t.Fatal(r)
			}
			back, r := end.Check(refused, Opposite(c.f.Direction))
			if r != nil {
				t.Fatal(r)
			}
			w := forward.Message.(*linkv1.Withheld)
			digest := sha256.Sum256(c.f.Payload)
			if withheld.Counter != c.f.Counter || w.Type != c.f.Type || !bytes.Equal(w.Digest, digest[:]) ||
				!proto.Equal(w.Entry, c.entry) || w.Call != c.call || !strings.HasPrefix(w.Reason, string(refusal.Reason)+": ") {
				t.Errorf("withheld %v %v", withheld, w)
			}
			if m := back.Message.(*linkv1.Refused); m.Counter != c.f.Counter || !proto.Equal(m.Withheld, w) {
				t.Errorf("refused %v", m)
			}
		})
	}
}

func TestLongReasonsAreCutBetweenCharacters(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "나루나루": "나루", "1234567": "1234567", "123456나": "123456"} {
		if got := cut(in, 7); got != want {
			t.Errorf("%q was cut to %q", in, got)
		}
	}
}
