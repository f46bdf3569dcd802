package link

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// P11, P15: whatever frames come out of the path, tagged by a hostile peer or by nobody, an end takes them without
// waiting and without falling over, and what has no tag of the session's is never taken.
func FuzzSession(f *testing.F) {
	for _, m := range []struct {
		t linkv1.Type
		m proto.Message
	}{
		{linkv1.Type_STATE_CHUNK, &linkv1.StateChunk{Incarnation: "first", Full: true, Through: 3}},
		{linkv1.Type_STATE_ACK, &linkv1.StateAck{Point: &linkv1.StateAckPoint{Epoch: 1}}},
		{linkv1.Type_JOURNAL_ACK, &linkv1.JournalAck{}},
		{linkv1.Type_CALL_REQUEST, &linkv1.CallRequest{Call: 1, Method: getVM, Body: []byte("\x0a\x01a")}},
		{linkv1.Type_CALL_CANCEL, &linkv1.CallCancel{Call: 1}},
		{linkv1.Type_SAMPLE_BATCH, &linkv1.SampleBatch{Dropped: 1}},
		{linkv1.Type_WITHHELD, &linkv1.Withheld{Type: linkv1.Type_JOURNAL_BATCH, Digest: make([]byte, 32)}},
		{linkv1.Type_REFUSED, &linkv1.Refused{Withheld: &linkv1.Withheld{Type: linkv1.Type_CALL_RESPONSE, Digest: make([]byte, 32)}}},
	} {
		f.Add(int32(m.t), must(proto.Marshal(m.m)), true, false)
		f.Add(int32(m.t), must(proto.Marshal(m.m)), false, true)
	}
	end := atEnd()
	own, _, _ := ephemeral()
	other, _, _ := ephemeral()
	f.Fuzz(func(t *testing.T, kind int32, payload []byte, tagged, up bool) {
		w := newWorld()
		sending := linkv1.Direction_DOWN
		if !up {
			sending = linkv1.Direction_UP
		}
		s := newSession(t.Context(), sending, Path{}, shared{checker: end, timing: Timing{}.withDefaults(), metrics: w.hubMetrics, log: slog.New(slog.DiscardHandler)})
		defer s.end(context.Canceled)
		s.id = make([]byte, sessionSize)
		s.secrets = must(newSecrets(own, other.PublicKey().Bytes(), []byte("transcript")))
		o := &Opened{Hello: &linkv1.Hello{Incarnation: "first"}, Welcome: &linkv1.Welcome{Epoch: 1}}
		classes := Classes{StateSource: w.hubObjects, StateSink: w.hubCopies, JournalSource: w.hubLedger, JournalSink: w.hubBook}
		s.joinState(classes, o, nil)
		s.joinJournal(classes, o)
		if up {
			s.joinSamples(nil, w.box)
			s.onCall = (&servingTable{s: s, handler: handlerFunc(echo), live: map[uint64]*serving{}}).take
		} else {
			s.joinSamples(w.samples, nil)
			s.onCall = (&callTable{s: s, live: map[uint64]*zoneCall{}, wake: make(chan struct{}, 1)}).take
		}
		began := time.Now()
		for i := range 3 {
			fr := &linkv1.Frame{Session: s.id, Direction: opposite(sending), Counter: uint64(i + 1), Type: linkv1.Type(kind), Payload: payload}
			if tagged {
				s.secrets.tagger(fr.Direction).tag(fr)
			}
			if fr.Type == linkv1.Type_REFUSED {
				fr.Counter = 0
			}
			err := s.take(fr)
			if err == nil && !tagged && fr.Type != linkv1.Type_WITHHELD && fr.Type != linkv1.Type_REFUSED {
				t.Fatalf("%s without a tag was taken", fr.Type)
			}
			if err != nil {
				break
			}
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("it waited")
		}
	})
}

func opposite(d linkv1.Direction) linkv1.Direction {
	if d == linkv1.Direction_UP {
		return linkv1.Direction_DOWN
	}
	return linkv1.Direction_UP
}
