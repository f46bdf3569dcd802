package broker

import (
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// traffic counts one direction of one zone in a few hundred bytes, where the library's counters would take more than all
// else that a zone costs. Safe for concurrent use.
type traffic struct {
	forwarded [typeSlots]struct{ frames, bytes atomic.Uint64 }
}

// typeSlots is more than the highest number of a frame's type; a test holds it.
const typeSlots = 42

func (t *traffic) count(f *linkv1.Frame) {
	slot := &t.forwarded[f.Type]
	slot.frames.Add(1)
	slot.bytes.Add(uint64(len(f.Payload)))
}

// meter is what a pump counts with.
type meter struct {
	traffic  *traffic
	refusals *prometheus.CounterVec
	zone     string
	way      string
}

func (m *metrics) meter(zone string, d linkv1.Direction) *meter {
	return &meter{traffic: &traffic{}, refusals: m.refusals, zone: zone, way: d.String()}
}

func (m *meter) forwarded(f *linkv1.Frame) { m.traffic.count(f) }

func (m *meter) refused(reason wire.Reason) {
	m.refusals.WithLabelValues(m.zone, m.way, string(reason)).Inc()
}

// trafficCollector shows every zone's traffic when it is asked.
type trafficCollector struct {
	zones         *zones
	frames, bytes *prometheus.Desc
}

func newTrafficCollector(z *zones) *trafficCollector {
	labels := []string{"zone", "direction", "type"}
	return &trafficCollector{
		zones:  z,
		frames: prometheus.NewDesc("naru_broker_frames_total", "Frames forwarded.", labels, nil),
		bytes:  prometheus.NewDesc("naru_broker_payload_bytes_total", "Bytes of payload forwarded.", labels, nil),
	}
}

func (c *trafficCollector) Describe(to chan<- *prometheus.Desc) {
	to <- c.frames
	to <- c.bytes
}

func (c *trafficCollector) Collect(to chan<- prometheus.Metric) {
	for _, z := range c.zones.all() {
		for _, m := range []*meter{z.up, z.down} {
			for kind := range slices.Values(types()) {
				slot := &m.traffic.forwarded[kind]
				if n := slot.frames.Load(); n > 0 {
					to <- prometheus.MustNewConstMetric(c.frames, prometheus.CounterValue, float64(n), m.zone, m.way, kind.String())
					to <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(slot.bytes.Load()), m.zone, m.way, kind.String())
				}
			}
		}
	}
}

// types are all that a frame may be of.
func types() []linkv1.Type {
	var all []linkv1.Type
	for number := range linkv1.Type_name {
		all = append(all, linkv1.Type(number))
	}
	return all
}
