package etcdstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAStoreThatFillsUpSaysSoInTime(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	c.Member.Quota = 64 << 20
	a := z.open(c)
	own := a.own("cluster/c1")
	if a.Pressed() {
		t.Error("a new store is pressed")
	}
	junk := strings.Repeat("x", 500<<10)
	fill := func(id string) error {
		tx := a.Begin(own)
		tx.PutObserved(&apiv1.VM{Id: id, Host: junk})
		_, err := tx.Commit(t.Context())
		return err
	}
	n := 0
	for ; !a.Pressed(); n++ {
		if err := fill(fmt.Sprint("a", n)); err != nil {
			t.Fatalf("refused before it was pressed: %v", err)
		}
		a.measure(t.Context())
	}
	if size, quota := a.Size(); quota != 64<<20 || size*100 < quota*pressedAt {
		t.Errorf("pressed at %d of %d", size, quota)
	}
	if err := fill("results still flow"); err != nil {
		t.Errorf("a result is refused: %v", err)
	}
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = fill(fmt.Sprint("b", i))
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("beyond the quota: %v", err)
	}
}

// The race detector judges it.
func TestMembersAreAskedHowTheyAreWhileWhereTheyAreIsLearned(t *testing.T) {
	z := newZone(t)
	a := z.idle(z.config(1))
	const times = 20
	asked := make(chan error, 1)
	go func() {
		var err error
		for range times {
			_, e := a.status(t.Context(), a.clientURL())
			err = errors.Join(err, e)
		}
		asked <- err
	}()
	for range times {
		a.mu.Lock()
		a.endpoints = nil // what was known is another
		a.mu.Unlock()
		a.findEndpoints(t.Context())
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if got := a.Endpoints(); len(got) != 1 || got[0] != a.clientURL() {
		t.Errorf("endpoints %v", got)
	}
}
