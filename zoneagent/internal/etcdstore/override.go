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
	o := is.GetOverride()
	return ok && vm && o != nil && !o.GetGivenUp() && next.GetOverrideAnswered() != o.GetId()
}

// after makes what is wished of a VM come after an override that is given up, for whoever drives it.
func after(stored, wished proto.Message) proto.Message {
	is, ok := stored.(*apiv1.VM)
	vm, same := wished.(*apiv1.VM)
	if !ok || !same || !is.GetOverride().GetGivenUp() {
		return wished
	}
	out := proto.CloneOf(vm)
	if g := is.GetGeneration(); g.GetEpoch() == out.GetGeneration().GetEpoch() && g.GetIndex() == out.GetGeneration().GetIndex() {
		out.Generation.Override = g.GetOverride() + 1
	}
	return out
}

// Unanswered returns the overrides, as VM and override id, whose entry the control plane has consumed and to which the zone holds all the
// same: it has not heard the answer yet, or there is none, because the entry was rejected or withheld. own is the uplink's.
func (s *Store) Unanswered(ctx context.Context, own *Ownership) (map[string]string, error) {
	held := map[string]string{}
	s.picture.Nouns("vm", func(desired, _ proto.Message) {
		if o := desired.(*apiv1.VM).GetOverride(); o != nil && !o.GetGivenUp() {
			held[desired.(*apiv1.VM).GetId()] = o.GetId()
		}
	})
	if len(held) == 0 {
		return held, nil
	}
	j := &JournalSource{store: s, own: own}
	pending, err := j.Pending(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pending {
		for {
			b, err := j.After(ctx, p, pendingAtOnce)
			if err != nil {
				return nil, err
			}
			for _, e := range b.GetEntries() {
				if o := e.GetVmOverride(); held[o.GetVmId()] == o.GetOverride().GetId() {
					delete(held, o.GetVmId())
				}
				p.Sequence = e.GetSequence()
			}
			if len(b.GetEntries()) < pendingAtOnce {
				break
			}
		}
	}
	return held, nil
}

// pendingAtOnce is how many entries are looked through at once.
const pendingAtOnce = 256

// GiveUp lets go of overrides that nobody answers, and asks for all that is wanted anew: what was wished meanwhile was not taken. Until that
// comes the VMs stay as they are. own is the uplink's.
func (s *Store) GiveUp(ctx context.Context, own *Ownership, overrides map[string]string) error {
	st, err := s.standing(ctx)
	if err != nil {
		return err
	}
	t := s.Begin(own)
	for id, override := range overrides {
		is, err := s.Get(ctx, Desired, "vm", id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		vm := proto.CloneOf(is.Message.(*apiv1.VM))
		if vm.GetOverride().GetId() != override || t.Room() < 4 {
			continue // answered meanwhile; or one of so many that they go by and by
		}
		vm.Override.GivenUp = true
		t.Require(Desired, "vm", id, is.Revision)
		t.put(t.keys().of(Desired, "vm", id), vm)
		t.Journal(warning("vm.override-lost", fmt.Sprintf("what %s wanted of VM %s while the zone was cut off was not answered by the control plane, and is given up",
			vm.GetOverride().GetUser(), vm.GetName())))
	}
	if len(t.writes) == 0 {
		return nil
	}
	t.Require(Cursor, "", "", st.revision)
	t.put(t.keys().of(Cursor), &zonev1.Cursor{
		Point: &linkv1.StateAckPoint{Epoch: st.cursor.GetPoint().GetEpoch()}, EpochId: st.cursor.GetEpochId(), Syncing: true, Behind: st.cursor.GetBehind(),
	})
	t.del(t.keys().of(syncing))
	_, err = t.Commit(ctx)
	return err
}
