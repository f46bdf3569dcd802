package broker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one broker. The label zone is a zone's id, which only a certificate can bring; type, direction, reason and
// result come from closed sets.
type metrics struct {
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
	for _, c := range []prometheus.Collector{m.refusals, m.ends, m.queries, m.turnedAway, m.throttled, m.sessions, m.servers, m.serving, m.connections, expiry} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
