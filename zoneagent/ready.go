package zoneagent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/obs"
)

// metricsServer serves /healthz, /readyz and /metrics from before New waits for the zone's etcd, so that whoever watches an
// agent sees what it waits for. A nil one serves nothing.
type metricsServer struct {
	stop  context.CancelFunc
	ended chan struct{}
	err   error // why, once it has ended
}

func (a *Agent) serveMetrics() (*metricsServer, error) {
	if a.config.MetricsAddress == "" {
		return nil, nil
	}
	l, err := config.Listen("metrics_address", a.config.MetricsAddress)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &metricsServer{stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		m.err = obs.Serve(ctx, l, obs.Handler(a.registry, a.ready))
	}()
	return m, nil
}

// run waits until ctx ends or the server has failed.
func (m *metricsServer) run(ctx context.Context) error {
	if m == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ended:
		return m.err
	}
}

func (m *metricsServer) close() {
	if m != nil {
		m.stop()
		<-m.ended
	}
}

// errNoStore is what an agent waits for that cannot work.
var errNoStore = errors.New("waiting for the zone's etcd: more than half of its members must run, and be reached from here")

// ready says what the agent waits for; nil while it can work.
func (a *Agent) ready(ctx context.Context) error {
	if !a.opened.Load() {
		return errNoStore
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := a.store.Cursor(ctx); err != nil {
		return fmt.Errorf("%w: %w", errNoStore, err)
	}
	return nil
}
