package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

// Store is the zone's store as one agent uses it. All methods are safe for concurrent use.
type Store struct {
	cfg     Config
	keys    keyspace
	log     *slog.Logger
	metrics *metrics
	folder  *folder
	client  *clientv3.Client
	leases  leaser
	held    *heldLeases
	witness witness
	feed    *feed
	hints   hints
	picture *Picture

	settling  sync.Mutex
	anchoring sync.Mutex
	written   *zonev1.Anchor

	mu        sync.Mutex
	member    *member.Member
	endpoints []string
	gone      map[uint64]time.Duration
	pressure  pressure

	// base ends with Close; everything that outlives a call hangs on it.
	base     context.Context
	end      context.CancelCauseFunc
	children sync.WaitGroup
}

// Open connects to the zone's store: it starts this agent's member where it has one (or is the first agent of the
// zone), waits until etcd answers, and settles the incarnation. While etcd does not answer it keeps trying, and says
// so in the log, until ctx ends.
//
// The caller runs Run beside the store's use, and Close at the end.
func Open(ctx context.Context, c Config) (*Store, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	f, err := openFolder(c.Dir, c.Zone, c.Agent)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: c, keys: newKeyspace(c.Zone), log: c.Logger, metrics: newMetrics(c.Registerer), folder: f,
		gone: map[uint64]time.Duration{}, feed: newFeed(), picture: newPicture(),
	}
	s.base, s.end = context.WithCancelCause(context.Background())
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := s.startMember(); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	if err := s.await(ctx); err != nil {
		return err
	}
	if m := s.cfg.Member; m != nil && m.forget {
		if err := s.settle(ctx, "etcd's other members were forgotten"); err != nil {
			return err
		}
	}
	if err := s.endFormer(ctx); err != nil {
		s.log.Warn("what this agent's former process owned ends by itself", "error", err)
	}
	s.findEndpoints(ctx)
	s.children.Go(func() { s.watchLoop(s.base) })
	return nil
}

// connect makes the client; it dials when it is used.
func (s *Store) connect() error {
	tls, err := s.cfg.TLS.Client()
	if err != nil {
		return err
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: s.endpoints, TLS: tls, Context: s.base, Logger: zap.NewNop(),
		DialTimeout: s.cfg.RequestTimeout, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: s.cfg.RequestTimeout,
		MaxCallSendMsgSize: 2 * max(s.cfg.MaxBytes, 1<<20), RejectOldCluster: false,
	})
	if err != nil {
		return fmt.Errorf("etcd client for %s: %w", strings.Join(s.endpoints, ", "), err)
	}
	s.leases = &etcdLeases{client: s.client}
	return nil
}

// await settles the incarnation as soon as etcd answers.
func (s *Store) await(ctx context.Context) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 3*time.Second) {
		err := s.settle(ctx, "")
		if err == nil {
			return nil
		}
		var broken *DecodeError
		if errors.As(err, &broken) {
			return err
		}
		if ctx.Err() == nil {
			s.log.Warn("the zone's etcd does not answer yet", "endpoints", s.endpoints, "error", err, "again_in", wait)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the zone's etcd at %s does not answer: see that it runs (more than half of its members), that this machine reaches it, and that its certificates are of this zone: %w",
				strings.Join(s.endpoints, ", "), errors.Join(context.Cause(ctx), err))
		case <-time.After(wait):
		}
	}
}

// Run keeps the store in order: it keeps the Picture, watches for another incarnation, writes the anchor, follows this agent's
// role among etcd's members, and looks after size and age of what is kept. It ends with ctx, or with what cannot be mended here.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops sync.WaitGroup
	loops.Go(func() { s.anchorLoop(ctx) })
	loops.Go(func() { s.upkeepLoop(ctx) })
	loops.Go(func() { every(ctx, s.cfg.Heartbeat, func() { s.beat(ctx) }) })
	for _, loop := range []func(context.Context) error{s.roleLoop, s.pictureLoop} {
		loops.Go(func() {
			if err := loop(ctx); err != nil {
				cancel(err)
			}
		})
	}
	loops.Wait()
	return context.Cause(ctx)
}

// beat looks at the incarnation when nothing else does.
func (s *Store) beat(ctx context.Context) {
	resp, err := s.get(ctx, s.keys.of(incarnation))
	if now, _ := s.witness.read(); err == nil && (len(resp.Kvs) == 0 || resp.Kvs[0].ModRevision != now.revision) {
		err = s.settle(ctx, "")
	} else if err != nil {
		_, err = s.life(ctx)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("the zone's etcd does not answer", "error", err)
	}
}

// Close ends what hangs on the store, writes the anchor, and stops this agent's member.
func (s *Store) Close() error {
	s.end(ErrClosed)
	s.children.Wait()
	s.writeAnchor()
	var err error
	if s.client != nil {
		err = s.client.Close()
		if errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	s.mu.Lock()
	m := s.member
	s.member = nil
	s.mu.Unlock()
	if m != nil {
		m.Close()
	}
	s.folder.close()
	return err
}

// rawTxn sends one transaction and believes the answer as it is.
func (s *Store) rawTxn(ctx context.Context, compare []clientv3.Cmp, then []clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.cfg.RequestTimeout)
	defer cancel()
	return s.client.Txn(ctx).If(compare...).Then(then...).Commit()
}

// txn sends one transaction; a response out of another life of the store is an error.
func (s *Store) txn(ctx context.Context, compare []clientv3.Cmp, then []clientv3.Op) (*clientv3.TxnResponse, error) {
	m := s.witness.mark()
	resp, err := s.rawTxn(ctx, compare, then)
	if err != nil {
		return nil, err
	}
	return resp, s.witness.judge(m, resp.Header)
}

// get reads linearizably; a response out of another life of the store is an error.
func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), s.cfg.RequestTimeout)
	defer cancel()
	m := s.witness.mark()
	resp, err := s.client.Get(ctx, key, opts...)
	if err != nil {
		return nil, err
	}
	return resp, s.witness.judge(m, resp.Header)
}

// Get reads one key; ErrNotFound where there is none.
func (s *Store) Get(ctx context.Context, space Space, kind, id string) (Change, error) {
	key := s.keys.named(space, kind, id)
	resp, err := s.get(ctx, key)
	if err != nil {
		return Change{}, fmt.Errorf("read %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return Change{}, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	c, _, err := s.keys.change(resp.Kvs[0])
	return c, err
}

// uniqueSorted is all without doubles and blanks.
func uniqueSorted(all ...string) []string {
	all = slices.DeleteFunc(all, func(s string) bool { return s == "" })
	slices.Sort(all)
	return slices.Compact(all)
}
