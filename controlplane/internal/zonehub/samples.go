package zonehub

import (
	"maps"
	"sync"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// sampleLife is how long a sample is shown after it came: what no longer reports has nothing to show. It is counted by
	// this server's clock; what a zone says of the time is only shown.
	sampleLife = 2 * time.Minute
	// maxHosts and maxVMs bound what is kept of one zone, whatever it claims to have.
	maxHosts = 1 << 14
	maxVMs   = 1 << 17
	// sweepEvery is how often the old ones are looked for, however many batches come.
	sweepEvery = sampleLife / 8
)

// Samples is the newest sample of each host and VM of the zones whose sessions this server holds. Safe for concurrent use.
type Samples struct {
	now func() time.Time

	mu    sync.Mutex
	zones map[string]*zoneSamples
}

type zoneSamples struct {
	hosts map[string]came[*apiv1.HostSample]
	vms   map[string]came[*apiv1.VMSample]
	swept time.Time
}

// came is a sample with when it came here.
type came[S any] struct {
	sample S
	at     time.Time
}

// keep puts samples in; new ones beyond the bound are dropped.
func keep[S any](kept map[string]came[S], samples []S, id func(S) string, bound int, now time.Time) {
	for _, s := range samples {
		if _, known := kept[id(s)]; known || len(kept) < bound {
			kept[id(s)] = came[S]{s, now}
		}
	}
}

// sweep lets the old ones go.
func sweep[S any](kept map[string]came[S], now time.Time) {
	maps.DeleteFunc(kept, func(_ string, c came[S]) bool { return !c.shown(now) })
}

func (c came[S]) shown(now time.Time) bool { return now.Sub(c.at) <= sampleLife }

// NewSamples returns an empty store.
func NewSamples(now func() time.Time) *Samples {
	return &Samples{now: now, zones: map[string]*zoneSamples{}}
}

// take keeps what a zone sent. The zone's name comes from its session, whatever the samples say.
func (s *Samples) take(zoneID, zoneName string, b *linkv1.SampleBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zones[zoneID]
	if z == nil {
		z = &zoneSamples{hosts: map[string]came[*apiv1.HostSample]{}, vms: map[string]came[*apiv1.VMSample]{}}
		s.zones[zoneID] = z
	}
	for _, h := range b.GetHosts() {
		h.Zone = zoneName
	}
	for _, v := range b.GetVms() {
		v.Zone = zoneName
	}
	now := s.now()
	if now.Sub(z.swept) >= sweepEvery {
		sweep(z.hosts, now)
		sweep(z.vms, now)
		z.swept = now
	}
	keep(z.hosts, b.GetHosts(), (*apiv1.HostSample).GetHostId, maxHosts, now)
	keep(z.vms, b.GetVms(), (*apiv1.VMSample).GetVmId, maxVMs, now)
}

// forget drops what a zone sent: its session here has ended.
func (s *Samples) forget(zoneID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zones, zoneID)
}

// Newest returns what is kept. The messages are not to be changed.
func (s *Samples) Newest() (hosts []*apiv1.HostSample, vms []*apiv1.VMSample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, z := range s.zones {
		for _, h := range z.hosts {
			if h.shown(now) {
				hosts = append(hosts, h.sample)
			}
		}
		for _, v := range z.vms {
			if v.shown(now) {
				vms = append(vms, v.sample)
			}
		}
	}
	return hosts, vms
}
