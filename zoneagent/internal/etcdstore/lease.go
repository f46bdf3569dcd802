package etcdstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// errLeaseGone: the lease has ended.
var errLeaseGone = errors.New("lease has ended")

// leaser is what an ownership needs of etcd's leases.
type leaser interface {
	// Grant begins a lease of at least ttl.
	Grant(ctx context.Context, ttl time.Duration) (id int64, granted time.Duration, err error)
	// Keep renews a lease once and returns how long it lasts from some moment after the call began. errLeaseGone
	// where it has ended.
	Keep(ctx context.Context, id int64) (time.Duration, error)
	// Revoke ends a lease; what is bound to it is deleted.
	Revoke(ctx context.Context, id int64) error
}

// etcdLeases speaks to etcd's lease service. The client library's own keep-alive hides when a request was sent, which
// is what a deadline is reckoned from.
type etcdLeases struct {
	client *clientv3.Client
}

func (l *etcdLeases) Grant(ctx context.Context, ttl time.Duration) (int64, time.Duration, error) {
	resp, err := l.client.Grant(clientv3.WithRequireLeader(ctx), int64(ttl/time.Second))
	if err != nil {
		return 0, 0, err
	}
	return int64(resp.ID), time.Duration(resp.TTL) * time.Second, nil
}

func (l *etcdLeases) Keep(ctx context.Context, id int64) (time.Duration, error) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	stream, err := etcdserverpb.NewLeaseClient(l.client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return 0, err
	}
	resp, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	if resp.GetTTL() <= 0 {
		return 0, errLeaseGone
	}
	return time.Duration(resp.GetTTL()) * time.Second, nil
}

func (l *etcdLeases) Revoke(ctx context.Context, id int64) error {
	_, err := l.client.Revoke(ctx, clientv3.LeaseID(id))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// keeper keeps one lease alive and knows until when it lasts for certain.
type keeper struct {
	leases  leaser
	id      int64
	ttl     time.Duration
	margin  time.Duration
	elapsed func() time.Duration

	mu sync.Mutex
	// sent is when the last keep-alive that was confirmed had been sent.
	sent time.Duration
}

// remaining is how long the lease lasts for certain, the margin taken off; it may be negative.
func (k *keeper) remaining() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sent + k.ttl - k.margin - k.elapsed()
}

// confirm takes a keep-alive's answer: the request was sent at the moment given.
func (k *keeper) confirm(sent, ttl time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent, k.ttl = max(k.sent, sent), ttl
}

// run renews the lease three times in its life until ctx ends (nil) or the lease is gone (why).
func (k *keeper) run(ctx context.Context) error {
	wait := k.ttl / 3
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		left := k.remaining() + k.margin
		if left <= 0 {
			return errLeaseGone
		}
		sent := k.elapsed()
		call, cancel := context.WithTimeout(ctx, min(left, k.ttl/3))
		ttl, err := k.leases.Keep(call, k.id)
		cancel()
		switch {
		case err == nil:
			k.confirm(sent, ttl)
			wait = ttl / 3
		case errors.Is(err, errLeaseGone):
			return err
		default:
			wait = min(k.ttl/20, 200*time.Millisecond)
		}
	}
}
