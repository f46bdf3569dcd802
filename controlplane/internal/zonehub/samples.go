package zonehub

import (
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	// awayLife is how long the last samples of a zone are kept whose session has ended.
	awayLife = 24 * time.Hour
	// sweepEvery is how often the old ones are looked for, however many batches come.
	sweepEvery = sampleLife / 8
)

// Samples is the newest sample of each host and VM of the zones whose sessions this server holds, and the last ones of zones
// whose session it held. Safe for concurrent use.
type Samples struct {
	now func() time.Time

	mu    sync.Mutex
	zones map[string]*zoneSamples
}

type zoneSamples struct {
	hosts map[string]came[*apiv1.HostSample]
	vms   map[string]came[*apiv1.VMSample]
	swept time.Time
	left  time.Time // when its session here ended; zero while there is one
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
	now := s.now()
	z.left = time.Time{}
	for _, h := range b.GetHosts() {
		h.Zone, h.Freshness, h.SeenAt = zoneName, apiv1.Freshness_LIVE, timestamppb.New(now)
	}
	for _, v := range b.GetVms() {
		v.Zone, v.Freshness, v.SeenAt = zoneName, apiv1.Freshness_LIVE, timestamppb.New(now)
	}
	if now.Sub(z.swept) >= sweepEvery {
		sweep(z.hosts, now)
		sweep(z.vms, now)
		z.swept = now
	}
	keep(z.hosts, b.GetHosts(), (*apiv1.HostSample).GetHostId, maxHosts, now)
	keep(z.vms, b.GetVms(), (*apiv1.VMSample).GetVmId, maxVMs, now)
}

// leave notes that a zone's session here has ended: what it sent last is stale from now on.
func (s *Samples) leave(zoneID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if z := s.zones[zoneID]; z != nil && z.left.IsZero() {
		z.left = s.now()
	}
}

// Newest returns what is kept, each with whether it is live. The messages are not to be changed.
func (s *Samples) Newest() (hosts []*apiv1.HostSample, vms []*apiv1.VMSample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	maps.DeleteFunc(s.zones, func(_ string, z *zoneSamples) bool { return !z.left.IsZero() && now.Sub(z.left) > awayLife })
	for _, z := range s.zones {
		hosts = appendShown(hosts, z.hosts, z, now, func(h *apiv1.HostSample) { h.Freshness = apiv1.Freshness_STALE })
		vms = appendShown(vms, z.vms, z, now, func(v *apiv1.VMSample) { v.Freshness = apiv1.Freshness_STALE })
	}
	return hosts, vms
}

// appendShown appends what is shown of a zone; of one that is away, what was shown when it left, as stale.
func appendShown[S proto.Message](to []S, kept map[string]came[S], z *zoneSamples, now time.Time, stale func(S)) []S {
	for _, c := range kept {
		switch {
		case z.left.IsZero() && c.shown(now):
			to = append(to, c.sample)
		case !z.left.IsZero() && c.shown(z.left):
			last := proto.CloneOf(c.sample)
			stale(last)
			to = append(to, last)
		}
	}
	return to
}
