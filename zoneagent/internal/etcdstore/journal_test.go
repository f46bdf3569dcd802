package etcdstore

import (
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func ack(origin, stream string, n uint64, rejected ...*linkv1.Rejected) *linkv1.JournalAck {
	return &linkv1.JournalAck{Points: []*linkv1.JournalPoint{{Origin: origin, Stream: stream, Sequence: n}}, Rejected: rejected}
}

func TestAJournalIsSentUntilItIsAcknowledgedAndReplayedOnRequest(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	c.JournalKeep = 200 // of two streams
	a := z.open(c)
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	source := a.JournalSource(link)
	if p := must(source.Pending(t.Context())); len(p) != 0 {
		t.Errorf("pending in a new store: %v", p)
	}
	for i := range 300 {
		tx := a.Begin(own)
		tx.Journal(usage(fmt.Sprintf("vm-%d", i)))
		a.commit(tx)
	}
	tx := a.Begin(link)
	tx.Journal(usage("of the zone"))
	a.commit(tx)

	life, _ := a.Incarnation()
	pending := must(source.Pending(t.Context()))
	if len(pending) != 2 || pending[0].GetStream() != "c1" || pending[1].GetStream() != "zone" || pending[0].GetSequence() != 0 {
		t.Fatalf("pending: %v", pending)
	}
	b := must(source.After(t.Context(), pending[0], 256))
	if len(b.GetEntries()) != 256 || b.GetOrigin() != life.GetId() || b.GetEntries()[255].GetSequence() != 256 {
		t.Errorf("batch of %d entries of %s", len(b.GetEntries()), b.GetOrigin())
	}
	for _, n := range []uint64{256, 100, 999} {
		if err := source.Acknowledged(t.Context(), ack(life.GetId(), "c1", n)); err != nil {
			t.Fatal(err)
		}
	}
	if p := must(source.Pending(t.Context())); len(p) != 1 || p[0].GetStream() != "zone" {
		t.Errorf("pending after all was acknowledged: %v", p)
	}
	replay := must(source.After(t.Context(), &linkv1.JournalPoint{Origin: life.GetId(), Stream: "c1", Sequence: 250}, 256))
	if len(replay.GetEntries()) != 50 || replay.GetEntries()[0].GetSequence() != 251 {
		t.Errorf("replay after 250 is %d entries", len(replay.GetEntries()))
	}
	kept := must(source.After(t.Context(), &linkv1.JournalPoint{Origin: life.GetId(), Stream: "c1"}, 256))
	if n := len(kept.GetEntries()); n != 100 {
		t.Errorf("%d entries are kept, 100 are asked", n)
	}
	if zone := a.journal(life.GetId(), "zone"); len(zone) != 2 || zone[1].GetEvent().GetType() != "zone.journal-trimmed" {
		t.Errorf("what no backup has is deleted, and the zone says %v", zone)
	}
	tx = a.Begin(own)
	tx.Journal(usage("later"))
	a.commit(tx)
	if p := must(source.Pending(t.Context())); len(p) != 2 || p[0].GetSequence() != 300 {
		t.Errorf("pending after one more: %v", p)
	}
}

func TestP24AcknowledgedEntriesAreKeptUntilABackupHasThem(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	for i := range 10 {
		e := usage(fmt.Sprintf("vm-%d", i))
		e.Time = timestamppb.New(time.Now().AddDate(-1, 0, 0)) // age alone is no reason
		tx := a.Begin(own)
		tx.Journal(e)
		a.commit(tx)
	}
	life, _ := a.Incarnation()
	source := a.JournalSource(link)
	for _, c := range []struct {
		what              string
		sequence, covered uint64
		oldest            uint64
		points            [2]uint64
	}{
		{"nothing is covered", 10, 0, 1, [2]uint64{10, 0}},
		{"a backup has some", 10, 4, 5, [2]uint64{10, 4}},
		{"an older word comes late", 7, 2, 5, [2]uint64{10, 4}},
		{"a plane that was restored has less, and its backup says more than that", 3, 9, 5, [2]uint64{10, 4}},
		{"a backup has all", 10, 10, 0, [2]uint64{10, 10}},
		{"the plane claims more than there is", 99, 99, 0, [2]uint64{10, 10}},
	} {
		p := ack(life.GetId(), "c1", c.sequence)
		p.Points[0].Covered = c.covered
		if err := source.Acknowledged(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		var oldest uint64
		if kept := a.journal(life.GetId(), "c1"); len(kept) > 0 {
			oldest = kept[0].GetSequence()
		}
		st := must(source.streams(t.Context()))[life.GetId()+"/c1"]
		if oldest != c.oldest || [2]uint64{st.acknowledged, st.covered} != c.points {
			t.Errorf("%s: the oldest kept is %d, want %d; %+v", c.what, oldest, c.oldest, st)
		}
	}
	if zone := a.journal(life.GetId(), "zone"); len(zone) != 0 {
		t.Errorf("nothing was lost, and the zone says %v", zone)
	}
}

func TestP24ThatTheBoundWasReachedIsToldOnceUntilABackupCoversItAgain(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	c.JournalKeep = 40
	a := z.open(c)
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	life, _ := a.Incarnation()
	source := a.JournalSource(link)
	written := uint64(0)
	acknowledge := func(entries int, covered uint64) (told int) {
		for range entries {
			tx := a.Begin(own)
			tx.Journal(usage("vm"))
			a.commit(tx)
			written++
		}
		p := ack(life.GetId(), "c1", written)
		p.Points[0].Covered = covered
		if err := source.Acknowledged(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for _, e := range a.journal(life.GetId(), "zone") {
			if e.GetEvent().GetType() == "zone.journal-trimmed" {
				told++
			}
		}
		if kept := len(a.journal(life.GetId(), "c1")); kept > 40 {
			t.Errorf("%d entries are kept", kept)
		}
		return told
	}
	for _, step := range []struct {
		what    string
		entries int
		covered uint64
		told    int
	}{
		{"there is room", 30, 0, 0},
		{"the bound is reached", 30, 0, 1},
		{"and again", 30, 0, 1},
		{"a backup has all", 5, 95, 1},
		{"the bound is reached once more", 60, 95, 2},
	} {
		if told := acknowledge(step.entries, step.covered); told != step.told {
			t.Errorf("%s: told %d times, want %d", step.what, told, step.told)
		}
	}
}

func TestALongJournalIsDeletedPieceByPiece(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	const entries = trimMost + 500
	for written := 0; written < entries; {
		tx := a.Begin(own)
		for ; written < entries && tx.Room() > 0; written++ {
			tx.Journal(usage("vm"))
		}
		a.commit(tx)
	}
	life, _ := a.Incarnation()
	source := a.JournalSource(link)
	for _, left := range []int{500, 0} {
		p := ack(life.GetId(), "c1", entries)
		p.Points[0].Covered = entries
		if err := source.Acknowledged(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if got := len(a.journal(life.GetId(), "c1")); got != left {
			t.Errorf("%d entries are left, want %d", got, left)
		}
	}
}

func TestWhatThePlaneRejectsIsRecorded(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	a.write(own, "vm-1")
	life, _ := a.Incarnation()
	entry := &linkv1.JournalPoint{Origin: life.GetId(), Stream: "c1", Sequence: 1}
	if err := a.JournalSource(link).Acknowledged(t.Context(), ack(life.GetId(), "c1", 1, &linkv1.Rejected{Entry: entry, Reason: "no such VM"})); err != nil {
		t.Fatal(err)
	}
	resp := must(a.get(t.Context(), a.keys.under(rejected), clientv3.WithPrefix()))
	if len(resp.Kvs) != 1 {
		t.Fatalf("%d records", len(resp.Kvs))
	}
	c, _, err := a.keys.change(resp.Kvs[0])
	if err != nil || c.Message.(*linkv1.Rejected).GetReason() != "no such VM" {
		t.Errorf("record is %v, %v", c.Message, err)
	}
}

func TestAnAcknowledgementOfAnUnknownStreamIsPassedOver(t *testing.T) {
	a := newZone(t).one()
	source := a.JournalSource(a.own(UplinkName))
	if err := source.Acknowledged(t.Context(), ack("nobody", "c9", 5)); err != nil {
		t.Error(err)
	}
	if _, err := source.After(t.Context(), &linkv1.JournalPoint{Origin: "a/b", Stream: "c"}, 1); err == nil {
		t.Error("an origin with a slash is read")
	}
}

func order(n uint64, vmID string) *linkv1.JournalEntry {
	return &linkv1.JournalEntry{Sequence: n, Body: &linkv1.JournalEntry_Order{Order: &linkv1.Order{
		OperationId: fmt.Sprintf("op-%d", n), Verb: linkv1.Order_REBOOT, VmId: vmID}}}
}

func orders(from, to uint64) *linkv1.JournalBatch {
	b := &linkv1.JournalBatch{Origin: "1", Stream: "c1"}
	for n := from; n <= to; n++ {
		b.Entries = append(b.Entries, order(n, fmt.Sprintf("vm-%d", n)))
	}
	return b
}

// P2: an order comes once, however often it is sent, and is taken up once.
func TestOrdersComeOnceAndInOrder(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	sink := a.OrderSink(link)
	commit := func(b *linkv1.JournalBatch, want uint64) {
		t.Helper()
		got, err := sink.Commit(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if p := got.GetPoints()[0]; p.GetSequence() != want || p.GetOrigin() != "1" || p.GetStream() != "c1" {
			t.Errorf("acknowledged %v, want %d", p, want)
		}
	}
	commit(orders(1, 3), 3)
	commit(orders(1, 3), 3)
	commit(orders(2, 5), 5)
	if _, err := sink.Commit(t.Context(), orders(7, 8)); !errors.Is(err, ErrGap) {
		t.Errorf("a gap: %v", err)
	}
	if points := must(sink.Points(t.Context())); len(points) != 1 || points[0].GetSequence() != 5 {
		t.Errorf("points are %v", points)
	}
	waiting := must(a.Snapshot(t.Context(), Order)).Changes
	if len(waiting) != 5 || waiting[0].Kind != "c1" || waiting[0].Message.(*linkv1.JournalEntry).GetOrder().GetVmId() != "vm-1" {
		t.Fatalf("waiting: %v", waiting)
	}
	for i, wanted := range []error{nil, ErrConflict} {
		tx := a.Begin(own)
		tx.ConsumeOrder(waiting[0].ID, waiting[0].Revision)
		if _, err := tx.Commit(t.Context()); !errors.Is(err, wanted) {
			t.Errorf("taking it up for the %d. time: %v", i+1, err)
		}
	}
	commit(orders(1, 5), 5)
	if left := must(a.Snapshot(t.Context(), Order)).Changes; len(left) != 4 {
		t.Errorf("%d wait: one that was taken up came back", len(left))
	}
}

func TestEveryOrderIsConsumed(t *testing.T) {
	a := newZone(t).one()
	sink := a.OrderSink(a.own(UplinkName))
	b := orders(1, 3)
	b.Entries[1] = usage("vm-1")
	b.Entries[1].Sequence = 2
	got := must(sink.Commit(t.Context(), b))
	if len(got.GetRejected()) != 1 || got.GetRejected()[0].GetEntry().GetSequence() != 2 || got.GetPoints()[0].GetSequence() != 3 {
		t.Errorf("acknowledgement is %v", got)
	}
	w := &linkv1.Withheld{Reason: "too large", Entry: &linkv1.JournalPoint{Origin: "1", Stream: "c1", Sequence: 4}}
	for range 2 {
		got = must(sink.Withheld(t.Context(), w))
		if got.GetPoints()[0].GetSequence() != 4 {
			t.Errorf("acknowledgement is %v", got)
		}
	}
	w.Entry.Sequence = 9
	if _, err := sink.Withheld(t.Context(), w); !errors.Is(err, ErrGap) {
		t.Errorf("a gap: %v", err)
	}
	if n := len(must(a.Snapshot(t.Context(), Order)).Changes); n != 2 {
		t.Errorf("%d orders wait", n)
	}
}

func TestALargeBatchOfOrdersFitsASmallEtcd(t *testing.T) {
	z := newZone(t)
	z.one()
	small := z.config(2, 1)
	small.Member, small.MaxOps = nil, 16
	b := z.open(small)
	if got := must(b.OrderSink(b.own(UplinkName)).Commit(t.Context(), orders(1, 200))); got.GetPoints()[0].GetSequence() != 200 {
		t.Errorf("acknowledged %v", got)
	}
	if n := len(must(b.Snapshot(t.Context(), Order)).Changes); n != 200 {
		t.Errorf("%d orders", n)
	}
}
