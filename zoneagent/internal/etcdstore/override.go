package etcdstore

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// PutLocalSession writes a session of an operator who logged in while the zone was cut off.
func (t *Tx) PutLocalSession(s *zonev1.LocalSession) {
	if t.part("session id", s.GetSession().GetId()) {
		t.put(t.keys().of(LocalSession, s.GetSession().GetId()), s)
	}
}

// DeleteLocalSession ends it.
func (t *Tx) DeleteLocalSession(id string) {
	if t.part("session id", id) {
		t.del(t.keys().of(LocalSession, id))
	}
}

// LocalSessions returns the sessions of operators who logged in while the zone was cut off, by id.
func (s *Store) LocalSessions(ctx context.Context) (all []*zonev1.LocalSession, err error) {
	resp, err := s.get(ctx, s.keys.under(LocalSession), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read local sessions: %w", err)
	}
	for _, kv := range resp.Kvs {
		c, _, err := s.keys.change(kv)
		if err != nil {
			return nil, err
		}
		all = append(all, c.Message.(*zonev1.LocalSession))
	}
	return all, nil
}

// PutLocalLog writes how far the zone's own log has grown. Only the uplink's owner writes it.
func (t *Tx) PutLocalLog(l *zonev1.LocalLog) { t.put(t.keys().of(LocalLog), l) }

// Override has the zone hold to what vm, with its override, says from now on, if it is still wanted as it was read at revision.
// cursor is where the zone stood then: what the control plane sends meanwhile is not to be taken for newer, so it moves with it.
func (t *Tx) Override(vm *apiv1.VM, revision int64, cursor Change) {
	if revision == 0 || vm.GetOverride().GetId() == "" {
		t.fail(errors.New("what is overridden was read before, and the override has an id"))
		return
	}
	if t.part("vm id", vm.GetId()) {
		t.Require(Desired, "vm", vm.GetId(), revision)
		t.put(t.keys().of(Desired, "vm", vm.GetId()), vm)
		t.Require(Cursor, "", "", cursor.Revision)
		t.put(t.keys().of(Cursor), cursor.Message)
	}
}

// holds reports whether the zone holds to an override that the control plane had not seen when it wished for something else.
func holds(stored, wished proto.Message) bool {
	is, ok := stored.(*apiv1.VM)
	next, vm := wished.(*apiv1.VM)
	return ok && vm && is.GetOverride() != nil && next.GetOverrideAnswered() != is.GetOverride().GetId()
}

// letGo gives up an override whose journal entry does not reach the control plane: nobody would ever answer it. What was wished
// meanwhile was not taken, so all is asked for again.
func (j *JournalSource) letGo(ctx context.Context, t *Tx, p *linkv1.JournalPoint) error {
	read, err := j.store.get(ctx, j.store.keys.of(journals, p.GetOrigin(), p.GetStream(), sequence(p.GetSequence())))
	if err != nil || len(read.Kvs) == 0 {
		return err
	}
	c, _, err := j.store.keys.change(read.Kvs[0])
	if err != nil {
		return err
	}
	entry := c.Message.(*linkv1.JournalEntry).GetVmOverride()
	if entry == nil {
		return nil
	}
	is, err := j.store.Get(ctx, Desired, "vm", entry.GetVmId())
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	vm := proto.CloneOf(is.Message.(*apiv1.VM))
	o := vm.GetOverride()
	if o.GetId() != entry.GetOverride().GetId() {
		return nil
	}
	st, err := j.store.standing(ctx)
	if err != nil {
		return err
	}
	vm.DesiredState, vm.Force, vm.Override = o.GetInsteadOf(), false, nil
	vm.Generation.Override++
	t.Require(Desired, "vm", vm.GetId(), is.Revision)
	t.put(t.keys().of(Desired, "vm", vm.GetId()), vm)
	t.Require(Cursor, "", "", st.revision)
	t.put(t.keys().of(Cursor), &zonev1.Cursor{
		Point: &linkv1.StateAckPoint{Epoch: st.cursor.GetPoint().GetEpoch()}, EpochId: st.cursor.GetEpochId(), Syncing: true, Behind: st.cursor.GetBehind(),
	})
	t.del(t.keys().of(syncing))
	t.Journal(warning("vm.override-lost", fmt.Sprintf("what %s wanted of VM %s while the zone was cut off did not reach the control plane, and is given up", o.GetUser(), vm.GetName())))
	return nil
}
