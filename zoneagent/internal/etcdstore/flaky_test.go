package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"
)

// flakyKV loses requests and answers of transactions that write, and may kill their owner on the way.
type flakyKV struct {
	clientv3.KV
	mu     sync.Mutex
	random *rand.Rand
	own    *Ownership
	// lose and kill are chances in a hundred.
	lose, kill int
}

func (k *flakyKV) Txn(ctx context.Context) clientv3.Txn { return &flakyTxn{Txn: k.KV.Txn(ctx), kv: k} }

func (k *flakyKV) chance(percent int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.random.IntN(100) < percent
}

type flakyTxn struct {
	clientv3.Txn
	kv     *flakyKV
	writes bool
}

func (t *flakyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *flakyTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *flakyTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, o := range ops {
		t.writes = t.writes || !o.IsGet()
	}
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *flakyTxn) Commit() (*clientv3.TxnResponse, error) {
	if !t.writes {
		return t.Txn.Commit()
	}
	lost := status.Error(codes.Unavailable, "the connection broke")
	if t.kv.chance(t.kv.lose) {
		return nil, lost
	}
	resp, err := t.Txn.Commit()
	if t.kv.chance(t.kv.kill) {
		t.kv.own.lose(errors.New("killed"))
	}
	if t.kv.chance(t.kv.lose) {
		return nil, lost
	}
	return resp, err
}

// P2, P17: owners come and go, are killed between sending and answer, and lose requests and answers. The journal stays
// dense, what was acknowledged is there, nothing is there twice, and object and entry are there together.
func TestCommitsTakeEffectOnceUnderLossAndCrashes(t *testing.T) {
	t.Parallel()
	z := newZone(t)
	a := z.idle(z.config(1))
	sound := a.client.KV
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		cluster := fmt.Sprintf("c%d", round)
		acknowledged, sent := map[string]bool{}, 0
		for range rapid.IntRange(1, 4).Draw(r, "owners") {
			own := a.own(ClusterName(cluster))
			seed := rapid.Uint64().Draw(r, "seed")
			a.client.KV = &flakyKV{KV: sound, random: rand.New(rand.NewPCG(seed, 1)), own: own,
				lose: rapid.IntRange(0, 25).Draw(r, "lose"), kill: rapid.IntRange(0, 10).Draw(r, "kill")}
			var mu sync.Mutex
			var writers sync.WaitGroup
			for range rapid.IntRange(1, 4).Draw(r, "writers") {
				ids := []string{}
				for range rapid.IntRange(1, 4).Draw(r, "each") {
					ids = append(ids, fmt.Sprintf("%s-vm-%d", cluster, sent))
					sent++
				}
				writers.Go(func() {
					for _, id := range ids {
						tx := a.Begin(own)
						tx.PutObserved(vm(id))
						tx.Require(Observed, "vm", id, 0)
						tx.Journal(usage(id))
						_, err := tx.Commit(t.Context())
						mu.Lock()
						acknowledged[id] = err == nil
						mu.Unlock()
						if err != nil && !errors.Is(err, ErrFenced) {
							r.Errorf("%s: %v", id, err)
						}
					}
				})
			}
			writers.Wait()
			a.client.KV = sound
			if err := own.Resign(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		life, _ := a.Incarnation()
		there := map[string]bool{}
		for i, e := range a.journal(life.GetId(), cluster) {
			id := e.GetUsage().GetVmId()
			if e.GetSequence() != uint64(i+1) {
				r.Fatalf("entry %d has sequence %d", i+1, e.GetSequence())
			}
			if there[id] {
				r.Fatalf("%s is there twice", id)
			}
			there[id] = true
		}
		for id, ok := range acknowledged {
			_, err := a.Get(t.Context(), Observed, "vm", id)
			if (err == nil) != there[id] {
				r.Fatalf("%s: object %v, entry %v", id, err, there[id])
			}
			if ok && !there[id] {
				r.Fatalf("%s was acknowledged and is not there", id)
			}
		}
	})
}
