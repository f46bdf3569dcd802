package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// received is a log that notes when each entry came.
type received struct {
	mu   sync.Mutex
	came []string
}

func (i *received) put(l raft.Log, _ time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.came = append(i.came, string(l.Data))
}

func (i *received) has(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	i.mu.Lock()
	defer i.mu.Unlock()
	if !slices.Equal(i.came, want) {
		t.Fatalf("in the log is %v, want %v", i.came, want)
	}
}

func TestWhatComesWhileGroupsAreOnTheirWayGoesAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &received{}
		g := &gatherer{put: log.put}
		enter := func(name string) func() { return g.enter([]byte(name), time.Second) }
		a, b := enter("a"), enter("b")
		log.has(t, "a", "b") // nothing was on its way, and then one
		c, d, e := enter("c"), enter("d"), enter("e")
		log.has(t, "a", "b")
		a()
		a() // once counts
		log.has(t, "a", "b", "c", "d", "e")
		f := enter("f")
		c() // the first of a group
		log.has(t, "a", "b", "c", "d", "e", "f")
		for _, leave := range []func(){b, d, e, f} {
			leave()
		}
		if enter("g"); g.open != 1 {
			t.Errorf("%d groups are on their way, and one is", g.open)
		}
	})
}

func TestAnEntryThatWaitsForNothingIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &received{}
		g := &gatherer{put: log.put}
		for _, name := range []string{"a", "b", "c"} {
			g.enter([]byte(name), time.Second)
		}
		time.Sleep(gatherMost - 1)
		log.has(t, "a", "b")
		g.enter([]byte("d"), time.Second)
		time.Sleep(time.Nanosecond)
		log.has(t, "a", "b", "c", "d")
		g.enter([]byte("e"), time.Second) // those before it were never answered
		time.Sleep(gatherMost)
		log.has(t, "a", "b", "c", "d", "e")
	})
}

func TestEachEntryGoesOnceInTheOrderOfWhoeverSendsIt(t *testing.T) {
	log := &received{}
	g := &gatherer{put: log.put}
	var senders sync.WaitGroup
	for s := range 16 {
		senders.Go(func() {
			for n := range 200 {
				name := fmt.Sprintf("%02d-%03d", s, n)
				leave := g.enter([]byte(name), time.Second)
				for in := false; !in; time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond) {
					log.mu.Lock()
					in = slices.Contains(log.came[max(0, len(log.came)-200):], name)
					log.mu.Unlock()
				}
				leave()
			}
		})
	}
	senders.Wait()
	all := slices.Clone(log.came)
	slices.Sort(all)
	if len(all) != 16*200 || len(slices.Compact(all)) != len(all) || g.open != 0 || g.waiting != nil {
		t.Errorf("%d entries came of %d, %d groups are on their way", len(log.came), 16*200, g.open)
	}
}
