package link

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// between lets a test change the frames of a session: each is called with every frame of its direction.
func between(up, down func(f *frame) []*frame) func(context.Context, int, *MemoryStream, *MemoryStream) {
	through := func(change func(*frame) []*frame) func(*frame) ([]*frame, []*frame) {
		return func(f *frame) ([]*frame, []*frame) {
			if change == nil {
				return pass(f)
			}
			return change(proto.CloneOf(f)), []*frame{}
		}
	}
	return func(_ context.Context, _ int, zone, hub *MemoryStream) {
		relay(zone, hub, through(up), through(down))
	}
}

func TestAnyChangeOfAFrameEndsTheSession(t *testing.T) {
	ping := func(f *frame) []*frame { return []*frame{f} }
	for _, c := range []struct {
		name   string
		change func(f *frame) []*frame
	}{
		{"a bit of the payload", func(f *frame) []*frame { f.Payload[len(f.Payload)/2] ^= 1; return ping(f) }},
		{"a bit of the tag", func(f *frame) []*frame { f.Tag[31] ^= 0x80; return ping(f) }},
		{"a shorter tag", func(f *frame) []*frame { f.Tag = f.Tag[:16]; return ping(f) }},
		{"no tag", func(f *frame) []*frame { f.Tag = nil; return ping(f) }},
		{"another session", func(f *frame) []*frame { f.Session[0] ^= 1; return ping(f) }},
		{"another type", func(f *frame) []*frame { f.Type = linkv1.Type_STATE_RESYNC; return ping(f) }},
		{"another direction", func(f *frame) []*frame { f.Direction = linkv1.Direction_DOWN; return ping(f) }},
		{"a higher counter", func(f *frame) []*frame { f.Counter++; return ping(f) }},
		{"a lower counter", func(f *frame) []*frame { f.Counter--; return ping(f) }},
		{"a counter cut to 32 bits and grown", func(f *frame) []*frame { f.Counter |= 1 << 32; return ping(f) }},
		{"a longer payload", func(f *frame) []*frame { f.Payload = append(f.Payload, 0); return ping(f) }},
		{"the frame twice", func(f *frame) []*frame { return []*frame{f, proto.CloneOf(f)} }},
		{"nothing in its place", func(*frame) []*frame { return []*frame{} }},
		{"a broker's frame with a later counter", func(f *frame) []*frame {
			return []*frame{f, {Session: f.Session, Direction: f.Direction, Counter: f.Counter + 2, Type: linkv1.Type_WITHHELD,
				Payload: must(proto.Marshal(&linkv1.Withheld{Type: linkv1.Type_PING, Digest: make([]byte, 32)}))}}
		}},
		{"an unknown field around it", func(f *frame) []*frame { f.ProtoReflect().SetUnknown([]byte{15 << 3, 1}); return ping(f) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld().build()
				n := 0
				w.path = between(func(f *frame) []*frame {
					if n++; f.Type == linkv1.Type_JOURNAL_BATCH && n < 100 {
						n = 100
						return c.change(f)
					}
					return ping(f)
				}, nil)
				w.zoneLedger.write("zone", "0")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, hub := w.once(ctx)
				if !errors.Is(hub, ErrProtocol) {
					t.Errorf("the hub ended with %v", hub)
				}
				if got := w.hubBook.read("first", "zone"); len(got) > 1 || len(got) == 1 && got[0] != "0" {
					t.Errorf("it took %v", got)
				}
			})
		})
	}
}

func TestFramesInAnotherOrderEndTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		var held *frame
		w.path = between(nil, func(f *frame) []*frame {
			switch {
			case f.Type != linkv1.Type_STATE_CHUNK && f.Type != linkv1.Type_JOURNAL_BATCH:
			case held == nil:
				held = f
				return []*frame{}
			default:
				return []*frame{f, held}
			}
			return []*frame{f}
		})
		w.hubObjects.put("vm-1")
		w.hubLedger.write("kvm", "0")
		zone, _ := w.once(t.Context())
		if !errors.Is(zone, ErrProtocol) {
			t.Error(zone)
		}
	})
}

func TestAReflectedFrameIsNotTheOtherEndsWord(t *testing.T) {
	for _, turned := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			w := newWorld().build()
			reflected := false
			w.path = func(_ context.Context, _ int, zone, hub *MemoryStream) {
				relay(zone, hub, func(f *frame) ([]*frame, []*frame) {
					if f.Type != linkv1.Type_STATE_CHUNK {
						return pass(f)
					}
					back := proto.CloneOf(f)
					if turned {
						back.Direction = linkv1.Direction_DOWN
					}
					reflected = true
					return []*frame{f}, []*frame{back}
				}, pass)
			}
			w.zoneObjects.put("vm-1")
			zone, _ := w.once(t.Context())
			if !errors.Is(zone, ErrProtocol) || !reflected || len(w.zoneCopies.holds) != 0 {
				t.Errorf("turned %v: %v", turned, zone)
			}
		})
	}
}

func TestAnOpeningThatIsChangedOpensNothing(t *testing.T) {
	rewrite := func(f *frame, m proto.Message, change func()) []*frame {
		if err := proto.Unmarshal(f.Payload, m); err != nil {
			panic(err)
		}
		change()
		f.Payload = must(proto.Marshal(m))
		return []*frame{f}
	}
	_, mitm, _ := ephemeral()
	hello := func(change func(*linkv1.Hello)) func(*frame) []*frame {
		return func(f *frame) []*frame {
			if f.Type != linkv1.Type_HELLO {
				return []*frame{f}
			}
			m := &linkv1.Hello{}
			return rewrite(f, m, func() { change(m) })
		}
	}
	welcome := func(change func(*linkv1.Welcome)) func(*frame) []*frame {
		return func(f *frame) []*frame {
			if f.Type != linkv1.Type_WELCOME {
				return []*frame{f}
			}
			m := &linkv1.Welcome{}
			return rewrite(f, m, func() { change(m) })
		}
	}
	proof := func(change func([]byte)) func(*frame) []*frame {
		return func(f *frame) []*frame {
			if f.Type != linkv1.Type_PROOF {
				return []*frame{f}
			}
			m := &linkv1.Proof{}
			return rewrite(f, m, func() { change(m.Signature) })
		}
	}
	for _, c := range []struct {
		name     string
		up, down func(*frame) []*frame
	}{
		{"the zone's key", hello(func(m *linkv1.Hello) { m.Key = mitm }), nil},
		{"a key that makes the secret known", hello(func(m *linkv1.Hello) { m.Key = make([]byte, 32) }), nil},
		{"the zone's nonce", hello(func(m *linkv1.Hello) { m.Nonce[0] ^= 1 }), nil},
		{"the zone's incarnation", hello(func(m *linkv1.Hello) { m.Incarnation = "other" }), nil},
		{"the zone's schema", hello(func(m *linkv1.Hello) { m.Schema = 9 }), nil},
		{"the hub's key", nil, welcome(func(m *linkv1.Welcome) { m.Key = mitm })},
		{"the hub's epoch", nil, welcome(func(m *linkv1.Welcome) { m.Epoch++ })},
		{"the hub's resume points", nil, welcome(func(m *linkv1.Welcome) { m.State = &linkv1.StateAckPoint{Revision: 99} })},
		{"the hub's proof", nil, proof(func(s []byte) { s[8] ^= 1 })},
		{"the zone's proof", proof(func(s []byte) { s[8] ^= 1 }), nil},
		{"the session's name", func(f *frame) []*frame { f.Session[3] ^= 1; return []*frame{f} }, func(f *frame) []*frame { f.Session[3] ^= 1; return []*frame{f} }},
		{"the order of the opening", func(f *frame) []*frame {
			if f.Type == linkv1.Type_HELLO {
				return []*frame{f, {Session: f.Session, Direction: f.Direction, Counter: 2, Type: linkv1.Type_PROOF, Payload: nil, Tag: make([]byte, 32)}}
			}
			return []*frame{f}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld().build()
				w.path = between(c.up, c.down)
				w.zoneObjects.put("vm-1")
				w.hubObjects.put("vm-1")
				zone, hub := w.once(t.Context())
				if zone == nil || hub == nil || len(w.hubCopies.holds)+len(w.zoneCopies.holds) > 0 {
					t.Fatalf("zone %v, hub %v", zone, hub)
				}
				if !errors.Is(zone, ErrProtocol) && !errors.Is(zone, ErrIdentity) && !errors.Is(hub, ErrProtocol) && !errors.Is(hub, ErrIdentity) {
					t.Errorf("nobody named it: zone %v, hub %v", zone, hub)
				}
			})
		})
	}
}

// thief shows another's chain and signs with its own key.
type thief struct {
	*member
	chain [][]byte
}

func (h thief) Chain() [][]byte { return h.chain }

func TestAChainWithoutItsKeyOpensNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		other := w.registry.join("zone/other/agent/a1", "other")
		w.build()
		w.zone.Identity = IdentityOf(thief{other, w.zoneKey.Chain()})
		if zone, hub := w.once(t.Context()); !errors.Is(hub, ErrIdentity) {
			t.Errorf("zone %v, hub %v", zone, hub)
		}
		w.zone.Identity = IdentityOf(w.zoneKey)
		w.hub.Identity = IdentityOf(thief{other, w.hubKey.Chain()})
		if zone, hub := w.once(t.Context()); !errors.Is(zone, ErrIdentity) {
			t.Errorf("zone %v, hub %v", zone, hub)
		}
	})
}

func TestAZoneIsWhatItsCertificateSaysAndTheBrokerSaw(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld()
		other := w.registry.join("zone/other/agent/a1", "other")
		w.build()
		for name, identity := range map[string]*member{
			"another zone's agent": other,
			"a server":             w.hubKey,
			"nobody":               {name: "nobody", key: other.key},
		} {
			w.zone.Identity = IdentityOf(identity)
			if zone, hub := w.once(t.Context()); !errors.Is(hub, ErrIdentity) || len(w.opened) != 0 {
				t.Errorf("%s: zone %v, hub %v", name, zone, hub)
			}
		}
	})
}

// P15: what was recorded opens nothing, changes nothing, and does not end the session that is running.
func TestARecordedOpeningOpensNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld().build()
		var recorded []*frame
		w.path = between(func(f *frame) []*frame {
			recorded = append(recorded, proto.CloneOf(f))
			return []*frame{f}
		}, nil)
		w.zoneLedger.write("zone", "0")
		w.start(t)
		tape := slices.Clone(recorded)
		if len(tape) < 3 {
			t.Fatalf("%d frames were recorded", len(tape))
		}
		err := w.hub.Run(t.Context(), func(ctx context.Context) (Path, error) {
			hub, far := Pipe(ctx, 4)
			w.wg.Go(func() {
				for _, f := range tape {
					if far.Send(f) != nil {
						return
					}
				}
			})
			return Path{Stream: hub, Zone: zoneID}, nil
		})
		if !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
		synctest.Wait()
		if w.dials != 1 || !w.zone.Connected() || len(w.hubBook.read("first", "zone")) != 1 {
			t.Errorf("%d sessions", w.dials)
		}
	})
}

func TestASealedCredentialOpensForItsCallOnly(t *testing.T) {
	own, _, _ := ephemeral()
	other, _, _ := ephemeral()
	a := must(newSecrets(own, other.PublicKey().Bytes(), []byte("transcript")))
	b := must(newSecrets(other, own.PublicKey().Bytes(), []byte("transcript")))
	sealed := a.sealCredential(7, getVM, []byte("body"), []byte("token"))
	if got, err := b.openCredential(7, getVM, []byte("body"), sealed); err != nil || string(got) != "token" {
		t.Errorf("%q, %v", got, err)
	}
	elsewhere := must(newSecrets(other, own.PublicKey().Bytes(), []byte("another transcript")))
	for name, open := range map[string]func() ([]byte, error){
		"another call":    func() ([]byte, error) { return b.openCredential(8, getVM, []byte("body"), sealed) },
		"another method":  func() ([]byte, error) { return b.openCredential(7, getVM+"s", []byte("body"), sealed) },
		"another body":    func() ([]byte, error) { return b.openCredential(7, getVM, []byte("bodx"), sealed) },
		"a moved border":  func() ([]byte, error) { return b.openCredential(7, getVM+"b", []byte("ody"), sealed) },
		"another session": func() ([]byte, error) { return elsewhere.openCredential(7, getVM, []byte("body"), sealed) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s opened %q", name, got)
		}
	}
	if bytes.Contains(sealed, []byte("token")) {
		t.Error("the credential is in the open")
	}
}

func TestTheKeysOfTheDirectionsDiffer(t *testing.T) {
	own, _, _ := ephemeral()
	other, _, _ := ephemeral()
	s := must(newSecrets(own, other.PublicKey().Bytes(), []byte("transcript")))
	f := &frame{Session: make([]byte, 16), Direction: linkv1.Direction_UP, Counter: 1, Type: linkv1.Type_PING}
	s.up.tag(f)
	if !s.up.matches(f) || s.down.matches(f) {
		t.Error("a tag of one direction is one of the other")
	}
}

// A hostile peer, with good keys: it has a session and does not keep to the protocol.
func TestAPeerThatBreaksAWindowIsCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, flood := range map[string]func(*session) error{
			"chunks beyond the window": func(s *session) error {
				return s.post(s.ctx, s.state, linkv1.Type_STATE_CHUNK, &linkv1.StateChunk{Incarnation: "first", Full: true, Through: 5})
			},
			"chunks of another life": func(s *session) error {
				return s.post(s.ctx, s.state, linkv1.Type_STATE_CHUNK, &linkv1.StateChunk{Incarnation: "stolen", Full: true, Through: 5})
			},
			"batches beyond the window": func(s *session) error {
				return s.post(s.ctx, s.journal, linkv1.Type_JOURNAL_BATCH, &linkv1.JournalBatch{Origin: "first", Stream: "x",
					Entries: []*linkv1.JournalEntry{{Sequence: 1, Body: &linkv1.JournalEntry_Usage{Usage: &linkv1.Usage{VmId: "v"}}}}})
			},
			"an acknowledgement of nothing": func(s *session) error {
				return s.post(s.ctx, s.journal, linkv1.Type_JOURNAL_ACK, &linkv1.JournalAck{Points: []*linkv1.JournalPoint{{Origin: "1763000000", Stream: "kvm", Sequence: 9}}})
			},
			"a state that is not on its way": func(s *session) error {
				return s.post(s.ctx, s.state, linkv1.Type_STATE_ACK, &linkv1.StateAck{Point: &linkv1.StateAckPoint{Epoch: 1763000000, Revision: 9}})
			},
			"a call twice": func(s *session) error {
				return s.post(s.ctx, s.call, linkv1.Type_CALL_REQUEST, &linkv1.CallRequest{Call: 5, Method: "/naru.api.v1.VMService/WatchVMs"})
			},
			"credit without end": func(s *session) error {
				_ = s.post(s.ctx, s.call, linkv1.Type_CALL_REQUEST, &linkv1.CallRequest{Call: 5, Method: "/naru.api.v1.VMService/WatchVMs", Credit: 1024})
				return s.post(s.ctx, s.call, linkv1.Type_CALL_CREDIT, &linkv1.CallCredit{Call: 5, Messages: 1024})
			},
			"a credential of another's": func(s *session) error {
				return s.post(s.ctx, s.call, linkv1.Type_CALL_REQUEST, &linkv1.CallRequest{Call: 6, Method: getVM, SealedCredential: make([]byte, 64)})
			},
			"a hello in the middle": func(s *session) error {
				return s.post(s.ctx, s.control, linkv1.Type_PROOF, &linkv1.Proof{})
			},
		} {
			w := newWorld()
			w.calls = handlerFunc(func(ctx context.Context, c *Call) error {
				for {
					if err := c.Send(ctx, nil); err != nil {
						return err
					}
					time.Sleep(time.Hour)
				}
			})
			w.build()
			ends := make(chan error, 1)
			w.wg.Go(func() { ends <- w.zone.Run(t.Context(), w.dial(t.Context())) })
			synctest.Wait()
			s := w.live().s
			w.hubTrouble.slow = make(chan struct{})
			for range 40 {
				if flood(s) != nil {
					break
				}
			}
			synctest.Wait()
			close(w.hubTrouble.slow)
			w.wg.Wait()
			var g *Goodbye
			if err := <-ends; !errors.As(err, &g) || g.Code != CodeProtocol {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
