package libvirt

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the driver, over all hosts.
type Metrics struct {
	seconds  *prometheus.HistogramVec
	connects *prometheus.CounterVec
	expiry   *prometheus.GaugeVec
}

// NewMetrics registers the driver's metrics; with nil they are kept and shown to nobody.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "naru_libvirt_call_seconds",
			Help:    "Time of calls to libvirt by remote procedure and outcome (ok, error).",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}, []string{"call", "outcome"}),
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_libvirt_connects_total",
			Help: "Attempts to connect to a libvirtd by outcome (ok, error).",
		}, []string{"outcome"}),
	}
	m.expiry = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "naru_libvirt_certificate_expiry_timestamp_seconds",
		Help: "When the certificate of a host's libvirtd ends, by host; of hosts over TLS.",
	}, []string{"host"})
	if registerer != nil {
		registerer.MustRegister(m.seconds, m.connects, m.expiry)
	}
	return m
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *Metrics) call(name string, took time.Duration, err error) {
	m.seconds.WithLabelValues(name, outcome(err)).Observe(took.Seconds())
}

func (m *Metrics) connect(err error) { m.connects.WithLabelValues(outcome(err)).Inc() }
