package etcdstore

import (
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// put is the event of a key that was written.
func put(key, value string, revision int64) *clientv3.Event {
	return &clientv3.Event{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: revision}}
}

func TestAllWhoFollowAreToldTheSameMessages(t *testing.T) {
	keys, f := newKeyspace(zoneID), newFeed()
	f.turn(true, nil)
	both, one := must(f.subscribe(t.Context(), []Space{Work, Observed})), must(f.subscribe(t.Context(), []Space{Observed}))
	spaces := f.deliver(keys, []*clientv3.Event{
		put(keys.of(Work, "vm-1"), "", 7), put(keys.of(journals, "o", "s", "1"), "\xff", 7), put(keys.of(Observed, "vm", "vm-1"), "", 8),
	})
	if fmt.Sprint(spaces) != "[work journal observed]" {
		t.Errorf("spaces: %v", spaces)
	}
	all, at, err := f.take(both)
	if len(all) != 2 || at != 8 || err != nil {
		t.Fatalf("%v at %d: %v", all, at, err)
	}
	some, _, _ := f.take(one)
	if len(some) != 1 || some[0].Message != all[1].Message {
		t.Errorf("told were %v and %v", all, some)
	}
}

func TestAValueThatDoesNotDecodeEndsThoseWhoFollowIt(t *testing.T) {
	keys, f := newKeyspace(zoneID), newFeed()
	f.turn(true, nil)
	work, observed := must(f.subscribe(t.Context(), []Space{Work})), must(f.subscribe(t.Context(), []Space{Observed}))
	f.deliver(keys, []*clientv3.Event{put(keys.of(Work, "vm-1"), "", 7), put(keys.of(Work, "vm-2"), "\xff\xff", 7), put(keys.of(Observed, "vm", "v"), "", 7)})
	var broken *DecodeError
	if changes, _, err := f.take(work); len(changes) > 0 || !errors.As(err, &broken) {
		t.Errorf("told %v, then %v", changes, err)
	}
	if changes, _, err := f.take(observed); len(changes) != 1 || err != nil {
		t.Errorf("who follows another space is told %v, %v", changes, err)
	}
}

func TestWhatWaitsForASlowFollowerIsBounded(t *testing.T) {
	keys, f := newKeyspace(zoneID), newFeed()
	f.turn(true, nil)
	slow := must(f.subscribe(t.Context(), []Space{Work}))
	e := put(keys.of(Work, "vm-1"), "", 7)
	for range maxQueued + 1 {
		f.deliver(keys, []*clientv3.Event{e})
	}
	if changes, _, err := f.take(slow); len(changes) > 0 || !errors.Is(err, errTooSlow) {
		t.Errorf("%d changes wait, %v", len(changes), err)
	}
	if len(f.subs) > 0 {
		t.Error("it is fed on")
	}
}
