package zoneagent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/schedule"
	"github.com/naru-project/naru/zoneagent/internal/worker"
)

// runClusters stands for the ownership of every cluster that the zone should have, and drives those that it owns.
func (a *Agent) runClusters(ctx context.Context) error {
	running := map[string]context.CancelFunc{}
	var work sync.WaitGroup
	defer work.Wait()
	return a.store.Follow(ctx, func(b etcdstore.Batch) error {
		for _, c := range b.Changes {
			if c.Kind != "cluster" {
				continue
			}
			stop := running[c.ID]
			switch {
			case c.Message == nil && stop != nil:
				stop()
				delete(running, c.ID)
			case c.Message != nil && stop == nil:
				cluster := c.Message.(*apiv1.Cluster)
				ctx, cancel := context.WithCancel(ctx)
				running[c.ID] = cancel
				work.Go(func() { a.runCluster(ctx, cluster) })
			}
		}
		return nil
	}, etcdstore.Desired)
}

// retryOwning is how long an agent waits before it stands again for a cluster whose term failed.
const retryOwning = time.Second

// runCluster stands for one cluster again and again until ctx ends.
func (a *Agent) runCluster(ctx context.Context, cluster *apiv1.Cluster) {
	log := a.log.With("cluster", cluster.GetName())
	for {
		own, err := a.store.Campaign(ctx, etcdstore.ClusterName(cluster.GetId()))
		if err != nil {
			if ctx.Err() == nil {
				log.Error("stand for the cluster", "error", err)
			}
			return
		}
		log.Info("this agent owns the cluster")
		err = a.runTerm(ctx, cluster, own)
		resign, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		if e := own.Resign(resign); e != nil && ctx.Err() == nil {
			log.Debug("give the cluster up", "error", e)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		log.Warn("this agent no longer owns the cluster", "cause", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryOwning):
		}
	}
}

// runTerm schedules and drives a cluster while it is owned.
func (a *Agent) runTerm(ctx context.Context, cluster *apiv1.Cluster, own *etcdstore.Ownership) error {
	term, err := schedule.NewTerm(schedule.Config{
		Cluster: cluster.GetId(), Store: schedule.Owned(a.store, own), Network: a.guestNetwork(),
		Logger: a.log.With("part", "schedule"), Metrics: a.schedule,
	})
	if err != nil {
		return err
	}
	drive := a.worker.NewTerm(cluster.GetId(), worker.Owned(a.store, own), own, term)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return stopped(term.Run(ctx)) })
	g.Go(func() error { return stopped(drive.Run(ctx)) })
	return g.Wait()
}

// stopped makes the end of one half of a term end the other.
func stopped(err error) error {
	if err == nil {
		return errors.New("the term ended")
	}
	return err
}

// Reach tells, for another agent, whether this one reaches a host.
func (a *Agent) Reach(ctx context.Context, hostID string) error {
	found, err := a.store.Get(ctx, etcdstore.Desired, "host", hostID)
	if err != nil {
		return fmt.Errorf("host %s: %w", hostID, err)
	}
	host := found.Message.(*apiv1.Host)
	if found, err = a.store.Get(ctx, etcdstore.Desired, "cluster", host.GetClusterId()); err != nil {
		return fmt.Errorf("cluster %s: %w", host.GetClusterId(), err)
	}
	return a.worker.Probe(ctx, found.Message.(*apiv1.Cluster).GetHypervisor(), host)
}
