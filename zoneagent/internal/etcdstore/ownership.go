package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// UplinkName is the election for the zone's link.
const UplinkName = "uplink"

// zoneStream is the journal stream of the uplink's owner.
const zoneStream = "zone"

// ClusterName is the election for a cluster.
func ClusterName(clusterID string) string { return "cluster/" + clusterID }

// Ownership is one agent's hold of one election, from the moment it was won. It is lost once and for ever.
type Ownership struct {
	// Name is the election's: UplinkName or ClusterName(id).
	Name string
	// Key and CreateRevision fence every write: the key is there with that revision as long as the ownership lasts.
	Key            string
	CreateRevision int64

	store   *Store
	keeper  *keeper
	commits chan *commit
	stop    context.CancelCauseFunc
	lost    chan struct{}
	// drained is closed when every transaction that was taken up has been answered.
	drained chan struct{}
	once    sync.Once
	won     atomic.Bool // the campaign has ended with it
}

// Campaign waits until this agent owns what is named, and goes on trying while etcd does not answer. ctx ends the
// waiting, not the ownership.
func (s *Store) Campaign(ctx context.Context, name string) (*Ownership, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		o, err := s.campaign(ctx, name)
		if err == nil {
			return o, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("campaign for %s: %w", name, errors.Join(context.Cause(ctx), err))
		case <-s.base.Done():
			return nil, fmt.Errorf("campaign for %s: %w", name, ErrClosed)
		case <-time.After(wait):
			s.log.Info("campaign begins again", "what", name, "reason", err)
		}
	}
}

func (s *Store) campaign(ctx context.Context, name string) (_ *Ownership, err error) {
	sent := s.cfg.Elapsed()
	id, ttl, err := s.grant(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	if err := s.held.add(id); err != nil {
		s.log.Warn("a lease could not be noted; the agent's next process will wait for its end", "error", err)
	}
	o := &Ownership{
		Name: name, Key: s.keys.of(elections, name, fmt.Sprintf("%016x", id)), store: s,
		keeper:  &keeper{leases: s.leases, id: id, ttl: ttl, margin: s.cfg.LeaseMargin, elapsed: s.cfg.Elapsed, sent: sent},
		commits: make(chan *commit, 1024), lost: make(chan struct{}), drained: make(chan struct{}),
	}
	alive, stop := context.WithCancelCause(s.base)
	o.stop = stop
	s.children.Go(func() {
		if err := o.keeper.run(alive); err != nil {
			o.lose(err)
		}
	})
	defer func() {
		if err != nil {
			o.lose(err)
			s.revoke(id)
		}
	}()
	waiting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(alive, func() { cancel(context.Cause(alive)) })()
	if err := o.queue(waiting, id); err != nil {
		if alive.Err() != nil {
			err = errors.Join(context.Cause(alive), err)
		}
		return nil, err
	}
	o.won.Store(true)
	s.children.Go(func() { o.commitLoop(alive) })
	s.log.Info("this agent owns", "what", name)
	return o, nil
}

func (s *Store) grant(ctx context.Context) (int64, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	return s.leases.Grant(ctx, s.cfg.LeaseTTL)
}

// revoke gives a lease back, so that nobody waits for its end. If it fails the lease ends by itself.
func (s *Store) revoke(id int64) {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.RequestTimeout)
	defer cancel()
	_ = s.leases.Revoke(ctx, id)
}

// queue puts the key at the end of the election's queue and waits until it is the first.
func (o *Ownership) queue(ctx context.Context, lease int64) error {
	s := o.store
	value, err := proto.Marshal(&apiv1.Reference{Kind: "agent", Id: s.cfg.Agent, Name: s.cfg.Agent})
	if err != nil {
		return err
	}
	if _, err := s.txn(ctx, []clientv3.Cmp{absent(o.Key)},
		[]clientv3.Op{clientv3.OpPut(o.Key, string(value), clientv3.WithLease(clientv3.LeaseID(lease)))}); err != nil {
		return err
	}
	for {
		before, at, err := o.predecessor(ctx)
		if err != nil {
			return err
		}
		if before == "" {
			return nil
		}
		if err := s.awaitDelete(ctx, before, at); err != nil {
			return err
		}
	}
}

// predecessor is the key just before ours in the queue, as of a revision; "" when we are the first.
func (o *Ownership) predecessor(ctx context.Context) (key string, at int64, err error) {
	queue := o.store.keys.under(elections, o.Name)
	resp, err := o.store.get(ctx, queue, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		return "", 0, err
	}
	for _, kv := range resp.Kvs {
		if string(kv.Key) == o.Key {
			o.CreateRevision = kv.CreateRevision
			return key, resp.Header.GetRevision(), nil
		}
		key = string(kv.Key)
	}
	return "", 0, errLeaseGone
}

// awaitDelete returns when the key has been deleted after revision at, or when that cannot be watched any more.
func (s *Store) awaitDelete(ctx context.Context, key string, at int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range s.client.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithRev(at+1)) {
		if resp.Err() != nil {
			break
		}
		for _, e := range resp.Events {
			if e.Type == clientv3.EventTypeDelete {
				return nil
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

// stream is the journal stream that the owner appends to.
func (o *Ownership) stream() string {
	if id, ok := strings.CutPrefix(o.Name, "cluster/"); ok {
		return id
	}
	return zoneStream
}

// Deadline is until when the ownership holds for certain: before it, no other agent can own. It moves with each
// keep-alive that is confirmed, and is reckoned from when that was sent. A driver call begins before the deadline and
// is bounded by it. The zero time, which is past, once the ownership is lost.
func (o *Ownership) Deadline() time.Time {
	select {
	case <-o.lost:
		return time.Time{}
	default:
		return time.Now().Add(o.keeper.remaining())
	}
}

// Held tells whether the deadline lies ahead and nothing was lost.
func (o *Ownership) Held() bool {
	select {
	case <-o.lost:
		return false
	default:
		return o.keeper.remaining() > 0
	}
}

// Lost is closed when the ownership has ended, whatever the reason.
func (o *Ownership) Lost() <-chan struct{} { return o.lost }

// Resign gives the ownership up, so that another agent can own at once. The caller has no driver call under way.
func (o *Ownership) Resign(ctx context.Context) error {
	o.lose(errResigned)
	return o.store.leases.Revoke(ctx, o.keeper.id)
}

var errResigned = errors.New("given up")

func (o *Ownership) lose(why error) {
	o.once.Do(func() {
		level := slog.LevelWarn
		if errors.Is(why, errResigned) || o.store.base.Err() != nil {
			level = slog.LevelInfo
		}
		if o.won.Load() {
			o.store.log.Log(context.Background(), level, "this agent owns no more", "what", o.Name, "reason", why)
		}
		o.stop(why)
		close(o.lost)
		if o.store.base.Err() == nil {
			o.store.held.remove(o.keeper.id) // it is kept no more, and ends by itself
		}
	})
}

// Owners are the agents that own, by the election's name.
func (s *Store) Owners(ctx context.Context) (map[string]string, error) {
	prefix := s.keys.under(elections)
	resp, err := s.get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	out := map[string]string{}
	for _, kv := range resp.Kvs {
		c, ok, err := s.keys.change(kv)
		if err != nil {
			return nil, err
		}
		if name := path.Dir(c.ID); ok && out[name] == "" {
			out[name] = c.Message.(*apiv1.Reference).GetName()
		}
	}
	return out, nil
}

// absent compares a key with not being there.
func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
