package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// picture is what a consumer makes of batches.
type picture struct {
	rows     map[string]int64
	revision int64
	resets   int
}

func (p *picture) take(b Batch) error {
	if b.Reset {
		p.rows = map[string]int64{}
		p.resets++
	}
	if !b.Reset && b.Revision <= p.revision {
		return fmt.Errorf("batch of revision %d after %d", b.Revision, p.revision)
	}
	last := int64(0)
	for _, c := range b.Changes {
		key := string(c.Space) + "/" + c.Kind + "/" + c.ID
		if !b.Reset && (c.Revision < last || c.Revision > b.Revision) {
			return fmt.Errorf("%s of revision %d after %d", key, c.Revision, last)
		}
		last = c.Revision
		if c.Message == nil {
			delete(p.rows, key)
		} else {
			p.rows[key] = c.Revision
		}
	}
	p.revision = b.Revision
	return nil
}

// follow follows until the picture has come to a revision.
func (r *running) follow(p *picture, until int64, spaces ...Space) {
	r.t.Helper()
	enough := errors.New("enough")
	err := r.Follow(r.t.Context(), func(b Batch) error {
		if err := p.take(b); err != nil {
			return err
		}
		if p.revision >= until {
			return enough
		}
		return nil
	}, spaces...)
	if !errors.Is(err, enough) {
		r.t.Fatal(err)
	}
}

func TestThePictureFollowsTheStore(t *testing.T) {
	a := newZone(t).one()
	own := a.own("cluster/c1")
	for i := range 5 {
		a.write(own, fmt.Sprintf("before-%d", i))
	}
	tx := a.Begin(own)
	tx.PutWork(&zonev1.Work{VmId: "vm-1"})
	a.commit(tx)

	live := &picture{}
	ctx, cancel := context.WithCancel(t.Context())
	started, target, done := make(chan struct{}), make(chan int64, 1), make(chan error, 1)
	go func() {
		first := true
		var until int64 = 1 << 60
		done <- a.Follow(ctx, func(b Batch) error {
			if err := live.take(b); err != nil {
				return err
			}
			if first {
				close(started)
				until, first = <-target, false
			}
			if live.revision >= until {
				cancel()
			}
			return nil
		})
	}()
	<-started
	for i := range 20 {
		tx := a.Begin(own)
		tx.PutObserved(vm(fmt.Sprintf("after-%d", i)))
		tx.PutWork(&zonev1.Work{VmId: fmt.Sprintf("after-%d", i)})
		if i%2 == 0 {
			tx.DeleteWork(fmt.Sprintf("after-%d", i-1))
		}
		tx.Journal(usage("x"))
		a.commit(tx)
	}
	tx = a.Begin(own)
	tx.DeleteWork("vm-1")
	target <- a.commit(tx)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	fresh := &picture{}
	a.follow(fresh, 0)
	if !maps.Equal(live.rows, fresh.rows) || live.resets != 1 {
		t.Errorf("followed: %v\nread:     %v\n%d resets", live.rows, fresh.rows, live.resets)
	}
}

func TestAnEmptyMessageIsNotADeletion(t *testing.T) {
	a := newZone(t).one()
	own := a.own("cluster/c1")
	if _, err := a.client.Put(t.Context(), a.keys.of(Work, "vm-1"), ""); err != nil {
		t.Fatal(err)
	}
	a.write(own, "x")
	p := &picture{}
	a.follow(p, 0, Work)
	if len(p.rows) != 1 {
		t.Errorf("picture is %v", p.rows)
	}
}

func TestManyKeysAreReadPageByPageAsOfOneRevision(t *testing.T) {
	a := newZone(t).one()
	own := a.own("cluster/c1")
	n := 0
	for n < 2*page+5 {
		tx := a.Begin(own)
		for tx.Room() > 0 && n < 2*page+5 {
			tx.PutWork(&zonev1.Work{VmId: fmt.Sprintf("vm-%05d", n)})
			n++
		}
		a.commit(tx)
	}
	if got := must(a.Snapshot(t.Context(), Work)); len(got.Changes) != n {
		t.Errorf("%d of %d", len(got.Changes), n)
	}
}

func TestALostWatchMakesTheFollowerStartOver(t *testing.T) {
	a := newZone(t).one()
	own := a.own("cluster/c1")
	a.write(own, "vm-1")
	p, enough, told := &picture{}, errors.New("enough"), make(chan struct{}, 2)
	done := make(chan error, 1)
	go func() {
		done <- a.Follow(t.Context(), func(b Batch) error {
			if err := p.take(b); err != nil {
				return err
			}
			if told <- struct{}{}; p.resets == 2 {
				return enough
			}
			return nil
		}, Observed)
	}()
	<-told
	a.feed.turn(false, errWatchEnded)
	for i := range 5 {
		a.write(own, fmt.Sprintf("vm-%d", i))
	}
	// The history of what was missed is gone.
	if _, err := a.client.Compact(t.Context(), must(a.client.Get(t.Context(), "x")).Header.Revision); err != nil {
		t.Fatal(err)
	}
	a.feed.turn(true, nil)
	if err := <-done; !errors.Is(err, enough) || len(p.rows) != 5 {
		t.Errorf("%v, the picture is %v", err, p.rows)
	}
}

func TestAValueThatDoesNotDecodeIsNamed(t *testing.T) {
	a := newZone(t).one()
	key := a.keys.of(Observed, "vm", "vm-1")
	if _, err := a.client.Put(t.Context(), key, "\xff\xff"); err != nil {
		t.Fatal(err)
	}
	_, got := a.Get(t.Context(), Observed, "vm", "vm-1")
	followed := a.Follow(t.Context(), func(Batch) error { return nil })
	for what, err := range map[string]error{"get": got, "follow": followed} {
		var broken *DecodeError
		if !errors.As(err, &broken) || broken.Key != key {
			t.Errorf("%s: %v", what, err)
		}
	}
}
