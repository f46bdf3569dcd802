package replica

import (
	"context"
	"sync"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Samples returns the newest samples of all zones: what this server holds, and what the others that answer in time hold.
func (r *Replica) Samples(ctx context.Context) (*commandv1.SamplesResponse, error) {
	all, err := r.c.Local.Samples(ctx)
	if err != nil {
		return nil, err
	}
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
			if theirs, err := peer.Samples(ctx, &commandv1.SamplesRequest{}); err == nil {
				mu.Lock()
				defer mu.Unlock()
				all.Hosts = append(all.Hosts, theirs.GetHosts()...)
				all.Vms = append(all.Vms, theirs.GetVms()...)
			}
		})
	}
	wait.Wait()
	return all, nil
}
