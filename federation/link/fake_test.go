package link

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// registry is a certificate authority reduced to a list: a chain is a name, and the list says whose it is.
type registry struct {
	mu    sync.Mutex
	peers map[string]Peer
}

// member is one who holds a key.
type member struct {
	name string
	key  crypto.Signer
}

func (m *member) Chain() [][]byte    { return [][]byte{[]byte(m.name)} }
func (m *member) Key() crypto.Signer { return m.key }

func (r *registry) join(name, zone string) *member {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &member{name: name}
	if len(r.peers)%2 == 0 {
		_, m.key, _ = ed25519.GenerateKey(rand.Reader)
	} else {
		m.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if r.peers == nil {
		r.peers = map[string]Peer{}
	}
	r.peers[name] = Peer{Name: name, Zone: zone, Agent: "a1", Key: m.key.Public()}
	return m
}

func (r *registry) verify(chain [][]byte) (Peer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(chain) != 1 {
		return Peer{}, fmt.Errorf("a chain of %d", len(chain))
	}
	p, ok := r.peers[string(chain[0])]
	if !ok {
		return Peer{}, fmt.Errorf("nobody knows %q", chain[0])
	}
	return p, nil
}

// errDisk is what a failing store says.
var errDisk = errors.New("the disk is full")

// trouble makes a store fail now and then, before or after it did what it was asked.
type trouble struct {
	mu     sync.Mutex
	random *mathrand.Rand
	rate   float64
	// slow, if set, is what every commit waits for first.
	slow chan struct{}
}

func (t *trouble) roll() (before, after error) {
	if t.slow != nil {
		<-t.slow
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.random == nil || t.random.Float64() >= t.rate {
		return nil, nil
	}
	if t.random.IntN(2) == 0 {
		return fmt.Errorf("before: %w", errDisk), nil
	}
	return nil, fmt.Errorf("after: %w", errDisk)
}

func (t *trouble) heal() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate = 0
}

// objects is a StateSource: a table of what the other end should hold, by revision.
type objects struct {
	changed chan struct{}

	mu          sync.Mutex
	epoch       uint64
	incarnation string
	revision    uint64
	table       map[string]*linkv1.Object
	acked       uint64
	fulls       int
}

func newObjects(epoch uint64, incarnation string) *objects {
	return &objects{changed: make(chan struct{}, 1), epoch: epoch, incarnation: incarnation, table: map[string]*linkv1.Object{}}
}

func (o *objects) Changed() <-chan struct{} { return o.changed }

func (o *objects) put(ids ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revision++
	for _, id := range ids {
		o.table[id] = &linkv1.Object{Revision: o.revision, Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{Id: id, Name: "vm", Host: fmt.Sprint(o.revision)}}}
	}
	signal(o.changed)
}

// putPoison puts an object that a broker does not let through.
func (o *objects) putPoison(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revision++
	o.table[id] = &linkv1.Object{Revision: o.revision, Noun: &linkv1.Object_Vm{Vm: &apiv1.VM{Id: id, Name: "NOT A NAME"}}}
	signal(o.changed)
}

func (o *objects) remove(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revision++
	o.table[id] = &linkv1.Object{Revision: o.revision, Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{Noun: &apiv1.Reference{Kind: "vm", Id: id}}}}
	signal(o.changed)
}

// compact drops the tombstones that were acknowledged.
func (o *objects) compact() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, object := range o.table {
		if object.GetTombstone() != nil && object.Revision <= o.acked {
			delete(o.table, id)
		}
	}
}

// begin starts a new life with what is there.
func (o *objects) begin(epoch uint64, incarnation string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch, o.incarnation, o.acked = epoch, incarnation, 0
	signal(o.changed)
}

func (o *objects) Since(_ context.Context, after *linkv1.StateAckPoint, limit int) (*linkv1.StateChunk, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	from := after.Revision
	if after.Epoch != o.epoch || after.Incarnation != o.incarnation || from > o.revision {
		from = 0
	}
	var found []*linkv1.Object
	for _, object := range o.table {
		if object.Revision > from {
			found = append(found, object)
		}
	}
	slices.SortFunc(found, func(a, b *linkv1.Object) int { return cmp.Compare(a.Revision, b.Revision) })
	chunk := &linkv1.StateChunk{Epoch: o.epoch, Incarnation: o.incarnation, After: from, Through: o.revision, End: true}
	if n := limit; len(found) > n {
		// Revisions stay whole.
		for n > 0 && found[n].Revision == found[n-1].Revision {
			n--
		}
		if n > 0 {
			found, chunk.End = found[:n], false
			chunk.Through = found[n-1].Revision
		}
	}
	if from == 0 {
		o.fulls++
	}
	if chunk.Through == after.Revision && from == after.Revision {
		return nil, nil
	}
	chunk.Objects = found
	return chunk, nil
}

func (o *objects) Acknowledged(_ context.Context, p *linkv1.StateAckPoint) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.Epoch == o.epoch && p.Incarnation == o.incarnation {
		o.acked = max(o.acked, p.Revision)
	}
	return nil
}

// copies is a StateSink.
type copies struct {
	*trouble

	mu      sync.Mutex
	point   *linkv1.StateAckPoint
	cursor  *linkv1.StateAckPoint // within a full sync
	holds   map[string]uint64
	commits int
	largest int
}

func newCopies(t *trouble) *copies {
	return &copies{trouble: t, point: &linkv1.StateAckPoint{}, holds: map[string]uint64{}}
}

func (c *copies) Point(context.Context) (*linkv1.StateAckPoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cursor = nil
	return proto.CloneOf(c.point), nil
}

func (c *copies) Commit(_ context.Context, chunk *linkv1.StateChunk) error {
	before, after := c.roll()
	if before != nil {
		return before
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	stands := c.point
	if c.cursor != nil {
		stands = c.cursor
	}
	through := &linkv1.StateAckPoint{Epoch: chunk.Epoch, Incarnation: chunk.Incarnation, Revision: chunk.Through}
	switch {
	case chunk.Full && chunk.After == 0:
		c.point = &linkv1.StateAckPoint{}
		c.cursor = through
	case stands.Epoch != chunk.Epoch || stands.Incarnation != chunk.Incarnation || stands.Revision != chunk.After:
		return fmt.Errorf("stands at %v, chunk after %d: %w", stands, chunk.After, ErrGap)
	case chunk.Full:
		c.cursor = through
	default:
		c.point = through
	}
	c.commits++
	c.largest = max(c.largest, len(chunk.Objects))
	for _, o := range chunk.Objects {
		if t := o.GetTombstone(); t != nil {
			delete(c.holds, t.Noun.Id)
		} else {
			c.holds[o.GetVm().Id] = o.Revision
		}
	}
	if chunk.Full && chunk.End {
		c.point, c.cursor = through, nil
	}
	return after
}

// same reports how a copy differs from its source, leaving out what is not to cross.
func (c *copies) differs(o *objects, without ...string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	want := 0
	for id, object := range o.table {
		if object.GetTombstone() != nil || slices.Contains(without, id) {
			continue
		}
		want++
		if c.holds[id] != object.Revision {
			return fmt.Sprintf("%s is held at %d, its source has %d", id, c.holds[id], object.Revision)
		}
	}
	if len(c.holds) != want {
		return fmt.Sprintf("%d objects are held, the source has %d", len(c.holds), want)
	}
	if c.point.Revision != o.revision {
		return fmt.Sprintf("the copy stands at %v, the source at %d", c.point, o.revision)
	}
	return ""
}

// ledger is a JournalSource.
type ledger struct {
	changed chan struct{}

	mu       sync.Mutex
	origin   string
	streams  map[string][]*linkv1.JournalEntry // what is kept
	written  map[string]uint64
	acked    map[string]uint64
	rejected []*linkv1.Rejected
	keep     bool
}

func newLedger(origin string) *ledger {
	return &ledger{changed: make(chan struct{}, 1), origin: origin, streams: map[string][]*linkv1.JournalEntry{}, written: map[string]uint64{}, acked: map[string]uint64{}}
}

func (l *ledger) Changed() <-chan struct{} { return l.changed }

func (l *ledger) write(stream, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written[stream]++
	l.streams[stream] = append(l.streams[stream], &linkv1.JournalEntry{
		Sequence: l.written[stream], Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{Message: message}},
	})
	signal(l.changed)
}

func (l *ledger) Pending(context.Context) ([]*linkv1.JournalPoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var heads []*linkv1.JournalPoint
	for stream, n := range l.written {
		if n > l.acked[stream] {
			heads = append(heads, &linkv1.JournalPoint{Origin: l.origin, Stream: stream, Sequence: l.acked[stream]})
		}
	}
	return heads, nil
}

func (l *ledger) After(_ context.Context, p *linkv1.JournalPoint, most int) (*linkv1.JournalBatch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Origin != l.origin {
		return nil, nil
	}
	b := &linkv1.JournalBatch{Origin: l.origin, Stream: p.Stream}
	for _, e := range l.streams[p.Stream] {
		if e.Sequence > p.Sequence && len(b.Entries) < most {
			b.Entries = append(b.Entries, e)
		}
	}
	if len(b.Entries) == 0 {
		return nil, nil
	}
	return b, nil
}

func (l *ledger) Acknowledged(_ context.Context, ack *linkv1.JournalAck) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rejected = append(l.rejected, ack.Rejected...)
	for _, p := range ack.Points {
		if p.Origin != l.origin || p.Sequence <= l.acked[p.Stream] {
			continue
		}
		l.acked[p.Stream] = p.Sequence
		if !l.keep {
			l.streams[p.Stream] = slices.DeleteFunc(l.streams[p.Stream], func(e *linkv1.JournalEntry) bool { return e.Sequence <= p.Sequence })
		}
	}
	return nil
}

// book is a JournalSink: it keeps what it consumed, in the order in which it did.
type book struct {
	*trouble

	mu       sync.Mutex
	points   map[streamKey]uint64
	consumed map[streamKey][]string
	withheld []*linkv1.Withheld
	reject   func(*linkv1.JournalEntry) string
	batches  int
}

func newBook(t *trouble) *book {
	return &book{trouble: t, points: map[streamKey]uint64{}, consumed: map[streamKey][]string{}}
}

func (b *book) Points(context.Context) ([]*linkv1.JournalPoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var points []*linkv1.JournalPoint
	for k, n := range b.points {
		points = append(points, &linkv1.JournalPoint{Origin: k.origin, Stream: k.stream, Sequence: n})
	}
	return points, nil
}

func (b *book) Commit(_ context.Context, batch *linkv1.JournalBatch) (*linkv1.JournalAck, error) {
	before, after := b.roll()
	if before != nil {
		return nil, before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := streamKey{batch.Origin, batch.Stream}
	ack := &linkv1.JournalAck{}
	b.batches++
	for _, e := range batch.Entries {
		if e.Sequence <= b.points[k] {
			continue
		}
		if e.Sequence != b.points[k]+1 {
			return nil, fmt.Errorf("entry %d of %s, stands at %d: %w", e.Sequence, k.stream, b.points[k], ErrGap)
		}
		b.points[k]++
		b.consumed[k] = append(b.consumed[k], e.GetEvent().GetMessage())
		if b.reject != nil {
			if reason := b.reject(e); reason != "" {
				ack.Rejected = append(ack.Rejected, &linkv1.Rejected{Entry: &linkv1.JournalPoint{Origin: k.origin, Stream: k.stream, Sequence: e.Sequence}, Reason: reason})
			}
		}
	}
	ack.Points = []*linkv1.JournalPoint{{Origin: k.origin, Stream: k.stream, Sequence: b.points[k]}}
	return ack, after
}

func (b *book) Withheld(_ context.Context, w *linkv1.Withheld) (*linkv1.JournalAck, error) {
	before, after := b.roll()
	if before != nil {
		return nil, before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := keyOf(w.Entry)
	if w.Entry.Sequence != b.points[k]+1 {
		return nil, fmt.Errorf("entry %d of %s withheld, stands at %d: %w", w.Entry.Sequence, k.stream, b.points[k], ErrGap)
	}
	b.points[k]++
	b.consumed[k] = append(b.consumed[k], "withheld")
	b.withheld = append(b.withheld, w)
	return &linkv1.JournalAck{Points: []*linkv1.JournalPoint{w.Entry}}, after
}

func (b *book) read(origin, stream string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.consumed[streamKey{origin, stream}])
}

// sampleBox is a SampleSink.
type sampleBox struct {
	mu      sync.Mutex
	vms     []string
	dropped int
}

func (s *sampleBox) Take(b *linkv1.SampleBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped += int(b.Dropped)
	for _, v := range b.Vms {
		s.vms = append(s.vms, v.Vm)
	}
}

// handlerFunc is a CallHandler.
type handlerFunc func(ctx context.Context, c *Call) error

func (h handlerFunc) Serve(ctx context.Context, c *Call) error { return h(ctx, c) }
