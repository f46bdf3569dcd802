package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"
)

// flakyKV loses requests and answers of transactions that write, delivers lost requests late, and may kill their owner
// on the way.
type flakyKV struct {
	clientv3.KV
	mu     sync.Mutex
	random *rand.Rand
	own    *Ownership
	// lose and kill are chances in a hundred.
	lose, kill int
	late       []*flakyTxn
}

func (k *flakyKV) Txn(ctx context.Context) clientv3.Txn { return &flakyTxn{kv: k, ctx: ctx} }

func (k *flakyKV) chance(percent int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.random.IntN(100) < percent
}

func (k *flakyKV) delay(t *flakyTxn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.late = append(k.late, t)
}

// deliver lets arrive, some of the time, what was lost before.
func (k *flakyKV) deliver() {
	if !k.chance(50) {
		return
	}
	k.mu.Lock()
	late := k.late
	k.late = nil
	k.mu.Unlock()
	for _, t := range late {
		_, _ = t.send(context.Background())
	}
}

type flakyTxn struct {
	kv      *flakyKV
	ctx     context.Context
	compare []clientv3.Cmp
	then    []clientv3.Op
}

func (t *flakyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.compare = c; return t }
func (t *flakyTxn) Then(o ...clientv3.Op) clientv3.Txn { t.then = o; return t }
func (t *flakyTxn) Else(...clientv3.Op) clientv3.Txn   { return t }

func (t *flakyTxn) send(ctx context.Context) (*clientv3.TxnResponse, error) {
	return t.kv.KV.Txn(ctx).If(t.compare...).Then(t.then...).Commit()
}

func (t *flakyTxn) Commit() (*clientv3.TxnResponse, error) {
	if !slices.ContainsFunc(t.then, func(o clientv3.Op) bool { return !o.IsGet() }) {
		return t.send(t.ctx)
	}
	lost := status.Error(codes.Unavailable, "the connection broke")
	if t.kv.chance(t.kv.lose) {
		t.kv.delay(t)
		return nil, lost
	}
	resp, err := t.send(t.ctx)
	t.kv.deliver()
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
					for i, id := range ids {
						tx := a.Begin(own)
						tx.PutObserved(vm(id))
						if i%2 == 0 {
							tx.Require(Observed, "vm", id, 0)
						}
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
