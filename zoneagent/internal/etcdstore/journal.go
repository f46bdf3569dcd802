package etcdstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// JournalSource sends up the journals of the zone's clusters and the zone's own, of this incarnation and of earlier
// ones that are not acknowledged yet.
type JournalSource struct {
	store   *Store
	own     *Ownership
	changed <-chan struct{}
}

// JournalSource is the uplink owner's.
func (s *Store) JournalSource(own *Ownership) *JournalSource {
	return &JournalSource{store: s, own: own, changed: s.hints.subscribe(own.Lost(), journals)}
}

// Changed holds a hint when there may be something new.
func (j *JournalSource) Changed() <-chan struct{} { return j.changed }

// streamState is one stream: where it ends, and up to where it was acknowledged, is covered by a backup, and was deleted.
type streamState struct {
	last, acknowledged, covered, trimmed uint64
}

// streams reads the heads of all streams, by "origin/stream".
func (j *JournalSource) streams(ctx context.Context) (map[string]streamState, error) {
	read := func(s Space) clientv3.Op { return clientv3.OpGet(j.store.keys.under(s), clientv3.WithPrefix()) }
	resp, err := j.store.txn(ctx, nil, []clientv3.Op{read(journalHead), read(journalAcked)})
	if err != nil {
		return nil, fmt.Errorf("read heads of journals: %w", err)
	}
	out := map[string]streamState{}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			c, ok, err := j.store.keys.change(kv)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			st, h := out[c.ID], c.Message.(*zonev1.JournalHead)
			if c.Space == journalHead {
				st.last = h.GetNext() - 1
			} else {
				st.acknowledged, st.covered, st.trimmed = h.GetAcknowledged(), h.GetCovered(), h.GetTrimmed()
			}
			out[c.ID] = st
		}
	}
	return out, nil
}

// Pending are the streams with entries that are not acknowledged, each with its last acknowledged sequence: After of it
// is what to send first.
func (j *JournalSource) Pending(ctx context.Context) ([]*linkv1.JournalPoint, error) {
	all, err := j.streams(ctx)
	if err != nil {
		return nil, err
	}
	var out []*linkv1.JournalPoint
	for _, id := range sortedKeys(all) {
		if st := all[id]; st.last > st.acknowledged {
			origin, stream, _ := strings.Cut(id, "/")
			out = append(out, &linkv1.JournalPoint{Origin: origin, Stream: stream, Sequence: st.acknowledged})
		}
	}
	return out, nil
}

// After is at most limit entries behind a point; nil where there are none. What was acknowledged is sent
// again when asked for, as long as it is kept; where it no longer is, the batch begins with the first entry that is.
func (j *JournalSource) After(ctx context.Context, p *linkv1.JournalPoint, limit int) (*linkv1.JournalBatch, error) {
	if err := checkPoint(p); err != nil {
		return nil, err
	}
	b := &linkv1.JournalBatch{Origin: p.GetOrigin(), Stream: p.GetStream()}
	prefix := j.store.keys.under(journals, p.GetOrigin(), p.GetStream())
	resp, err := j.store.get(ctx, prefix+sequence(p.GetSequence()+1),
		clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)), clientv3.WithLimit(int64(max(limit, 1))))
	if err != nil {
		return nil, fmt.Errorf("read journal %s of %s: %w", p.GetStream(), p.GetOrigin(), err)
	}
	for _, kv := range resp.Kvs {
		c, _, err := j.store.keys.change(kv)
		if err != nil {
			return nil, err
		}
		b.Entries = append(b.Entries, c.Message.(*linkv1.JournalEntry))
	}
	if len(b.Entries) == 0 {
		return nil, nil
	}
	return b, nil
}

func checkPoint(p *linkv1.JournalPoint) error {
	if err := checkPart("origin", p.GetOrigin()); err != nil {
		return err
	}
	return checkPart("stream", p.GetStream())
}

// Acknowledged takes note that entries are committed at the control plane, and of those that it did not accept. What is
// acknowledged is kept until a backup of the control plane has it, within a bound.
func (j *JournalSource) Acknowledged(ctx context.Context, ack *linkv1.JournalAck) error {
	all, err := j.streams(ctx)
	if err != nil {
		return err
	}
	t := j.store.Begin(j.own)
	for _, r := range ack.GetRejected() {
		if err := j.reject(t, r); err != nil {
			return err
		}
		if t, err = j.next(ctx, t); err != nil {
			return err
		}
	}
	for _, p := range ack.GetPoints() {
		st, ok := all[p.GetOrigin()+"/"+p.GetStream()]
		if !ok {
			continue
		}
		if err := checkPoint(p); err != nil {
			return err
		}
		j.acknowledge(t, p, st, max(j.store.cfg.JournalKeep/uint64(len(all)), 1))
		if t, err = j.next(ctx, t); err != nil {
			return err
		}
	}
	if len(t.writes) == 0 {
		return nil
	}
	_, err = t.Commit(ctx)
	return err
}

// next is t while there is room, else it is committed and a fresh one begun.
func (j *JournalSource) next(ctx context.Context, t *Tx) (*Tx, error) {
	if t.Room() > 4 {
		return t, nil
	}
	_, err := t.Commit(ctx)
	return j.store.Begin(j.own), err
}

func (j *JournalSource) reject(t *Tx, r *linkv1.Rejected) error {
	if err := checkPoint(r.GetEntry()); err != nil {
		return err
	}
	j.store.log.Error("the control plane did not accept a journal entry",
		"origin", r.GetEntry().GetOrigin(), "stream", r.GetEntry().GetStream(), "sequence", r.GetEntry().GetSequence(), "reason", r.GetReason())
	j.store.metrics.refused.WithLabelValues("rejected_by_plane").Inc()
	t.reject(r)
	return nil
}

// reject records an entry that was consumed and not accepted.
func (t *Tx) reject(r *linkv1.Rejected) {
	e := r.GetEntry()
	t.put(t.keys().of(rejected, e.GetOrigin(), e.GetStream(), sequence(e.GetSequence())), r)
}

const (
	// trimEvery is after how many acknowledged entries a stream is looked at for the bound.
	trimEvery = 64
	// trimMost is how many entries are deleted at once: etcd does nothing else meanwhile, and tells all who watch of each.
	trimMost = 4096
)

// acknowledge moves a stream's points. It deletes what a backup covers, and, of what none does, all but the last keep entries:
// they could be sent again only to a control plane that has forgotten them, and the store is not to be full of them.
func (j *JournalSource) acknowledge(t *Tx, p *linkv1.JournalPoint, was streamState, keep uint64) {
	is := was
	is.acknowledged = max(was.acknowledged, min(p.GetSequence(), was.last))
	is.covered = max(was.covered, min(p.GetCovered(), p.GetSequence(), is.acknowledged))
	is.trimmed = max(was.trimmed, is.covered)
	if there := min(p.GetSequence(), is.acknowledged); there > keep && (there/trimEvery != was.acknowledged/trimEvery || there == was.last) {
		is.trimmed = max(is.trimmed, there-keep)
	}
	is.trimmed = min(is.trimmed, was.trimmed+trimMost)
	if is == was {
		return
	}
	t.put(t.keys().of(journalAcked, p.GetOrigin(), p.GetStream()),
		&zonev1.JournalHead{Acknowledged: is.acknowledged, Covered: is.covered, Trimmed: is.trimmed})
	if is.trimmed == was.trimmed {
		return
	}
	for _, s := range []Space{journals, rejected} {
		prefix := t.keys().under(s, p.GetOrigin(), p.GetStream())
		t.delRange(prefix+sequence(0), prefix+sequence(is.trimmed+1))
	}
	if is.trimmed > is.covered && was.trimmed <= was.covered {
		j.store.log.Warn("entries of a journal are deleted that no confirmed backup of the control plane has",
			"origin", p.GetOrigin(), "stream", p.GetStream(), "up to", is.trimmed, "covered up to", is.covered)
		t.Journal(trimmedEvent(p, is.covered))
	}
}

// trimmedEvent tells that a stream is no longer kept back to where a backup has it.
func trimmedEvent(p *linkv1.JournalPoint, covered uint64) *linkv1.JournalEntry {
	return warning("zone.journal-trimmed", fmt.Sprintf("of journal %s/%s more was acknowledged than is kept without a backup; what a control plane "+
		"that is restored has of it after entry %d, it may lack for good: make a backup, with \"naru server backup\"", p.GetOrigin(), p.GetStream(), covered))
}

// unclaimedEvent tells of desired objects that a full sync did not name.
func unclaimedEvent(missing []*apiv1.Reference) *linkv1.JournalEntry {
	var first []string
	for _, r := range missing[:min(len(missing), 10)] {
		first = append(first, r.GetKind()+" "+r.GetName())
	}
	return warning("zone.unclaimed", strconv.Itoa(len(missing))+" objects of the zone are unknown to the control plane and are kept: "+strings.Join(first, ", "))
}

func warning(kind, message string) *linkv1.JournalEntry {
	now := timestamppb.Now()
	return &linkv1.JournalEntry{Time: now, Body: &linkv1.JournalEntry_Event{Event: &apiv1.Event{
		Id: uuid.Must(uuid.NewV7()).String(), Time: now, Severity: apiv1.Event_WARNING, Type: kind, Message: message,
	}}}
}
