package broker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// metrics of one broker. The label zone is a zone's id, which only a certificate can bring; type, direction, reason and
// result come from closed sets.
type metrics struct {
	frames      *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	sessions    *prometheus.GaugeVec
	ends        *prometheus.CounterVec
	queries     *prometheus.CounterVec
	turnedAway  *prometheus.CounterVec
	throttled   *prometheus.CounterVec
	servers     prometheus.Gauge
	serving     prometheus.Gauge
	connections prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, enrolledUntil func() time.Time) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.GaugeOpts { return prometheus.GaugeOpts{Name: name, Help: help} }
	m := &metrics{
		frames:      counter("naru_broker_frames_total", "Frames forwarded.", "zone", "direction", "type"),
		bytes:       counter("naru_broker_payload_bytes_total", "Bytes of payload forwarded.", "zone", "direction", "type"),
		refusals:    counter("naru_broker_refusals_total", "Frames refused.", "zone", "direction", "reason"),
		ends:        counter("naru_broker_session_ends_total", "Sessions ended, by why.", "zone", "reason"),
		queries:     counter("naru_broker_queries_total", "Joins and renewals, by how they ended.", "kind", "result"),
		turnedAway:  counter("naru_broker_connections_refused_total", "Connections to the zone leg that were closed before they could ask anything.", "reason"),
		throttled:   counter("naru_broker_throttled_seconds_total", "Time for which a zone's frames were held back by its limits.", "zone"),
		sessions:    prometheus.NewGaugeVec(gauge("naru_broker_sessions", "Live sessions."), []string{"zone"}),
		servers:     prometheus.NewGauge(gauge("naru_broker_servers", "Servers that hold an announce stream.")),
		serving:     prometheus.NewGauge(gauge("naru_broker_servers_serving", "Servers that take sessions.")),
		connections: prometheus.NewGauge(gauge("naru_broker_zone_connections", "Connections to the zone leg.")),
	}
	expiry := prometheus.NewGaugeFunc(gauge("naru_broker_certificate_expiry_timestamp_seconds", "When the broker's certificate ends; 0 before the first."), func() float64 {
		if until := enrolledUntil(); !until.IsZero() {
			return float64(until.Unix())
		}
		return 0
	})
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.frames, m.bytes, m.refusals, m.ends, m.queries, m.turnedAway, m.throttled, m.sessions, m.servers, m.serving, m.connections, expiry} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// meter counts one direction of one zone without looking labels up for each frame. Safe for concurrent use: it is
// complete when it is made.
type meter struct {
	frames, bytes map[linkv1.Type]prometheus.Counter
	refusals      *prometheus.CounterVec
}

func (m *metrics) meter(zone string, d linkv1.Direction) *meter {
	t := &meter{
		frames:   map[linkv1.Type]prometheus.Counter{},
		bytes:    map[linkv1.Type]prometheus.Counter{},
		refusals: m.refusals.MustCurryWith(prometheus.Labels{"zone": zone, "direction": d.String()}),
	}
	for number, name := range linkv1.Type_name {
		if kind := linkv1.Type(number); kind != linkv1.Type_TYPE_UNSPECIFIED {
			t.frames[kind] = m.frames.WithLabelValues(zone, d.String(), name)
			t.bytes[kind] = m.bytes.WithLabelValues(zone, d.String(), name)
		}
	}
	return t
}

func (t *meter) forwarded(f *linkv1.Frame) {
	t.frames[f.Type].Inc()
	t.bytes[f.Type].Add(float64(len(f.Payload)))
}

func (t *meter) refused(reason wire.Reason) { t.refusals.WithLabelValues(string(reason)).Inc() }
