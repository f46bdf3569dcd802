package broker

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// zone is what the sessions of one zone share. It is made when a valid certificate first names the zone, and stays: the
// federation's CA bounds how many there are.
type zone struct {
	id       string
	pace     *pace
	renewals *rate.Limiter
	up, down *meter
	live     prometheus.Gauge
}

// zones keeps them.
type zones struct {
	limits  Limits
	metrics *metrics

	mu   sync.Mutex
	byID map[string]*zone
}

func newZones(l Limits, m *metrics) *zones {
	return &zones{limits: l, metrics: m, byID: map[string]*zone{}}
}

func (z *zones) get(id string) *zone {
	z.mu.Lock()
	defer z.mu.Unlock()
	known, ok := z.byID[id]
	if !ok {
		known = &zone{
			id:       id,
			pace:     newPace(z.limits, func(d time.Duration) { z.metrics.throttled.WithLabelValues(id).Add(d.Seconds()) }),
			renewals: perMinute(z.limits.RenewalsPerMinutePerZone),
			up:       z.metrics.meter(id, linkv1.Direction_UP),
			down:     z.metrics.meter(id, linkv1.Direction_DOWN),
			live:     z.metrics.sessions.WithLabelValues(id),
		}
		z.byID[id] = known
	}
	return known
}

func (z *zones) all() []*zone {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Collect(maps.Values(z.byID))
}
