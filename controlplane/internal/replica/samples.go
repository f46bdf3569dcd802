package replica

import (
	"context"
	"sync"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Samples returns the newest samples of all zones: what this server holds, and what the others that answer in time hold.
func (r *Replica) Samples(ctx context.Context) (*commandv1.SamplesResponse, error) {
	all, err := r.c.Local.Samples(ctx)
	if err != nil {
		return nil, err
	}
	askOthers(ctx, r, func(ctx context.Context, peer commandv1.PeerServiceClient) (*commandv1.SamplesResponse, error) {
		return peer.Samples(ctx, &commandv1.SamplesRequest{})
	}, func(theirs *commandv1.SamplesResponse) {
		all.Hosts = append(all.Hosts, theirs.GetHosts()...)
		all.Vms = append(all.Vms, theirs.GetVms()...)
	})
	return all, nil
}

// Brokers returns what is seen of brokers now: by this server, and by the others that answer in time.
func (r *Replica) Brokers(ctx context.Context) ([]*apiv1.Broker, error) {
	all, err := r.c.Local.Brokers(ctx)
	if err != nil {
		return nil, err
	}
	askOthers(ctx, r, func(ctx context.Context, peer commandv1.PeerServiceClient) (*commandv1.BrokersResponse, error) {
		return peer.Brokers(ctx, &commandv1.BrokersRequest{})
	}, func(theirs *commandv1.BrokersResponse) {
		all = append(all, theirs.GetBrokers()...)
	})
	return all, nil
}

// askOthers asks every other server at once and gives what comes in time to take, one answer at a time.
func askOthers[A any](ctx context.Context, r *Replica, ask func(context.Context, commandv1.PeerServiceClient) (A, error), take func(A)) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, m := range r.raft.GetConfiguration().Configuration().Servers {
		if string(m.ID) == r.c.ServerID {
			continue
		}
		wait.Go(func() {
			peer, err := r.fabric.client(string(m.Address))
			if err != nil {
				return
			}
			if theirs, err := ask(ctx, peer); err == nil {
				mu.Lock()
				defer mu.Unlock()
				take(theirs)
			}
		})
	}
	wait.Wait()
}
