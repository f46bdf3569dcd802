package link

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// CurrentSchema is the schema version that this code speaks.
const CurrentSchema = 1

// sessionSize is the length of a session's name, nonceSize that of the opening's nonces.
const (
	sessionSize = 16
	nonceSize   = 32
)

// Opened is what both ends know once a session is open.
type Opened struct {
	Peer Peer
	// Schema binds whoever sends: it is the lowest on the path, brokers included.
	Schema  uint32
	Hello   *linkv1.Hello
	Welcome *linkv1.Welcome
}

// opening is the part of a session in which the ends prove who they are: HELLO up, WELCOME down, PROOF down, PROOF up.
// Until the last of these is verified, nothing that the other end says is acted upon.
type opening struct {
	s        *session
	line     context.Context
	identity Identity
	verify   Verify
	path     Path
}

// ephemeral is what an end makes anew for each session.
func ephemeral() (*ecdh.PrivateKey, []byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	return key, nonce, nil
}

// atZone opens a session from the zone's end.
func (o *opening) atZone(hello *linkv1.Hello) (*Opened, error) {
	key, nonce, err := ephemeral()
	if err != nil {
		return nil, err
	}
	o.s.id = make([]byte, sessionSize)
	rand.Read(o.s.id)
	hello.Schema = lowest(hello.Schema, o.path.Schema)
	hello.Key, hello.Nonce, hello.Chain = key.PublicKey().Bytes(), nonce, o.identity.Chain()
	said, err := o.say(linkv1.Type_HELLO, hello)
	if err != nil {
		return nil, err
	}
	welcome := &linkv1.Welcome{}
	heard, err := o.hear(linkv1.Type_WELCOME, welcome)
	if err != nil {
		return nil, err
	}
	if welcome.Schema == 0 || welcome.Schema > hello.Schema {
		return nil, fmt.Errorf("%w: the hub speaks %d, this path at most %d", ErrSchema, welcome.Schema, hello.Schema)
	}
	peer, err := o.who(welcome.Chain)
	if err != nil {
		return nil, err
	}
	digest := transcript(o.s.id, said, heard)
	if o.s.secrets, err = newSecrets(key, welcome.Key, digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if err := o.hearProof(peer, labelHub, digest); err != nil {
		return nil, err
	}
	if err := o.sayProof(labelZone, digest); err != nil {
		return nil, err
	}
	return &Opened{Peer: peer, Schema: welcome.Schema, Hello: hello, Welcome: welcome}, nil
}

// atHub answers the opening. admit is asked once the hello's chain is accepted; that the sender holds its key is not yet
// proven, so admit changes nothing.
func (o *opening) atHub(schema uint32, admit func(Peer, *linkv1.Hello) (*linkv1.Welcome, error)) (*Opened, error) {
	hello := &linkv1.Hello{}
	heard, err := o.hear(linkv1.Type_HELLO, hello)
	if err != nil {
		return nil, err
	}
	peer, err := o.who(hello.Chain)
	if err != nil {
		return nil, err
	}
	switch {
	case peer.Zone == "":
		return nil, fmt.Errorf("%w: the certificate of %s is no zone's", ErrIdentity, peer.Name)
	case o.path.Zone != "" && o.path.Zone != peer.Zone:
		return nil, fmt.Errorf("%w: the broker saw zone %s, the certificate is of zone %s", ErrIdentity, o.path.Zone, peer.Zone)
	}
	agreed := lowest(lowest(schema, hello.Schema), o.path.Schema)
	if hello.Schema == 0 {
		return nil, fmt.Errorf("%w: the zone speaks none", ErrSchema)
	}
	welcome, err := admit(peer, hello)
	if err != nil {
		return nil, err
	}
	key, nonce, err := ephemeral()
	if err != nil {
		return nil, err
	}
	welcome.Schema, welcome.Key, welcome.Nonce, welcome.Chain = agreed, key.PublicKey().Bytes(), nonce, o.identity.Chain()
	said, err := o.say(linkv1.Type_WELCOME, welcome)
	if err != nil {
		return nil, err
	}
	digest := transcript(o.s.id, heard, said)
	if o.s.secrets, err = newSecrets(key, hello.Key, digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if err := o.sayProof(labelHub, digest); err != nil {
		return nil, err
	}
	if err := o.hearProof(peer, labelZone, digest); err != nil {
		return nil, err
	}
	return &Opened{Peer: peer, Schema: agreed, Hello: hello, Welcome: welcome}, nil
}

func (o *opening) who(chain [][]byte) (Peer, error) {
	peer, err := o.verify(chain)
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return peer, nil
}

// say sends a payload and returns its bytes, which are what counts.
func (o *opening) say(kind linkv1.Type, m proto.Message) ([]byte, error) {
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	s := o.s
	s.sent++
	f := &linkv1.Frame{Session: s.id, Direction: s.sending, Counter: s.sent, Type: kind, Payload: payload}
	if s.secrets != nil {
		s.secrets.tagger(s.sending).tag(f)
	}
	s.metrics.sent(wire.ClassOpening, s.sending, len(payload))
	if err := s.stream.Send(f); err != nil {
		return nil, fmt.Errorf("send %s: %w: %w", kind, errStream, err)
	}
	return payload, nil
}

// hear receives the one payload that may come now.
func (o *opening) hear(kind linkv1.Type, into proto.Message) ([]byte, error) {
	f, err := o.s.stream.Recv()
	if err != nil {
		return nil, fmt.Errorf("wait for %s: %w: %w", kind, errStream, err)
	}
	if o.line.Err() != nil {
		return nil, o.line.Err() // nobody waits for this opening any more
	}
	if o.s.id == nil {
		o.s.id = f.Session // the zone's end names the session
	}
	checked, err := o.s.judge(f)
	if err != nil {
		return nil, err
	}
	switch m := checked.Message.(type) {
	case *linkv1.Withheld:
		return nil, fmt.Errorf("%w: %s: %s", ErrWithheld, m.Type, m.Reason)
	case *linkv1.Refused:
		return nil, fmt.Errorf("%w: %s: %s", ErrWithheld, m.GetWithheld().GetType(), m.GetWithheld().GetReason())
	case *linkv1.Goodbye:
		return nil, &Goodbye{Code: m.Code, Reason: m.Reason, Remote: true}
	}
	if f.Type != kind {
		return nil, broken("%s came where %s was due", f.Type, kind)
	}
	o.s.metrics.received(wire.ClassOpening, f.Direction, len(f.Payload))
	proto.Merge(into, checked.Message)
	return f.Payload, nil
}

func (o *opening) sayProof(label string, digest []byte) error {
	signature, err := o.identity.Sign(toSign(label, digest))
	if err != nil {
		return fmt.Errorf("sign the opening: %w", err)
	}
	_, err = o.say(linkv1.Type_PROOF, &linkv1.Proof{Signature: signature})
	return err
}

func (o *opening) hearProof(peer Peer, label string, digest []byte) error {
	proof := &linkv1.Proof{}
	if _, err := o.hear(linkv1.Type_PROOF, proof); err != nil {
		return err
	}
	if !signed(peer.Key, toSign(label, digest), proof.Signature) {
		return fmt.Errorf("%w: %s did not sign this opening", ErrIdentity, peer.Name)
	}
	return nil
}

// lowest of two schemas; 0 is no word.
func lowest(a, b uint32) uint32 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// judgeNumbers holds the numbers of an opened session against each other. Both ends come to the same verdict.
func judgeNumbers(o *Opened) error {
	h, w := o.Hello, o.Welcome
	switch {
	case w.Epoch == 0 || len(w.EpochId) == 0:
		return broken("the control plane names no epoch")
	case w.Epoch < h.Epoch:
		return fmt.Errorf("%w: it is %d, the zone has seen %d", ErrOldEpoch, w.Epoch, h.Epoch)
	case w.Epoch == h.Epoch && string(w.EpochId) != string(h.EpochId):
		return fmt.Errorf("%w: %d", ErrQuarantine, w.Epoch)
	case w.IncarnationLost:
		return fmt.Errorf("%w: incarnation %s at revision %d", ErrIncarnationLost, h.Incarnation, h.Revision)
	}
	return nil
}

// newSession prepares a session on a path that was just opened.
func newSession(ctx context.Context, sending linkv1.Direction, path Path, shared shared) *session {
	s := &session{
		sending: sending, stream: path.Stream,
		checker: shared.checker, timing: shared.timing, metrics: shared.metrics, log: shared.log,
		state: make(lane), journal: make(lane), call: make(lane), sample: make(lane), control: make(lane),
	}
	s.ctx, s.end = context.WithCancelCause(ctx)
	return s
}
