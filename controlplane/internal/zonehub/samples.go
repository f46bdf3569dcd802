package zonehub

import (
	"maps"
	"slices"
	"sync"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// sampleLife is how long a sample is shown after it was the newest: what no longer reports has nothing to show.
const sampleLife = 2 * time.Minute

// Samples is the newest sample of each host and VM of the zones whose sessions this server holds. Safe for concurrent use.
type Samples struct {
	now func() time.Time

	mu    sync.Mutex
	zones map[string]*zoneSamples
}

type zoneSamples struct {
	hosts map[string]*apiv1.HostSample
	vms   map[string]*apiv1.VMSample
}

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
		z = &zoneSamples{map[string]*apiv1.HostSample{}, map[string]*apiv1.VMSample{}}
		s.zones[zoneID] = z
	}
	for _, h := range b.GetHosts() {
		h.Zone = zoneName
		z.hosts[h.GetHostId()] = h
	}
	for _, v := range b.GetVms() {
		v.Zone = zoneName
		z.vms[v.GetVmId()] = v
	}
	oldest := s.now().Add(-sampleLife)
	maps.DeleteFunc(z.hosts, func(_ string, h *apiv1.HostSample) bool { return h.GetTime().AsTime().Before(oldest) })
	maps.DeleteFunc(z.vms, func(_ string, v *apiv1.VMSample) bool { return v.GetTime().AsTime().Before(oldest) })
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
	for _, z := range s.zones {
		hosts = slices.AppendSeq(hosts, maps.Values(z.hosts))
		vms = slices.AppendSeq(vms, maps.Values(z.vms))
	}
	return hosts, vms
}
