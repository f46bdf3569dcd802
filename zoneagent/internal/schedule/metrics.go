package schedule

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Metrics of all terms of one agent.
type Metrics struct {
	placed, departed, held, visits prometheus.Counter
	refused                        *prometheus.CounterVec
	failures                       *prometheus.CounterVec
	batch, seconds                 prometheus.Histogram
	waiting                        *prometheus.GaugeVec
}

// NewMetrics registers the metrics; r may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		placed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_schedule_placed_total", Help: "VMs that were given a host.",
		}),
		departed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_schedule_departed_total", Help: "VMs whose room and address were given back.",
		}),
		held: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_schedule_held_total", Help: "Passes that placed nothing because the store was nearly full.",
		}),
		visits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_schedule_visits_total", Help: "Nodes looked at to choose hosts.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_schedule_refused_total", Help: "VMs that found no place, by the problem's code.",
		}, []string{"code"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_schedule_commit_failures_total", Help: "Transactions that were not committed, by reason.",
		}, []string{"reason"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_schedule_batch_vms", Help: "VMs in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_schedule_pass_seconds", Help: "Time from deciding to durable, for one transaction.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "naru_schedule_waiting_vms", Help: "VMs that wait for a host, by cluster id.",
		}, []string{"cluster"}),
	}
	if r != nil {
		r.MustRegister(m.placed, m.departed, m.held, m.visits, m.refused, m.failures, m.batch, m.seconds, m.waiting)
	}
	return m
}

func (m *Metrics) committed(p *plan, took time.Duration) {
	m.placed.Add(float64(len(p.placed)))
	m.departed.Add(float64(len(p.left)))
	for _, r := range p.refused {
		m.refused.WithLabelValues(r.why.GetCode()).Inc()
	}
	m.batch.Observe(float64(len(p.placed) + len(p.refused) + len(p.ended) + len(p.left)))
	m.seconds.Observe(took.Seconds())
}

func (m *Metrics) failed(err error) {
	reason := "store"
	switch {
	case errors.Is(err, etcdstore.ErrConflict):
		reason = "conflict"
	case errors.Is(err, etcdstore.ErrTooLarge):
		reason = "too_large"
	case errors.Is(err, etcdstore.ErrFull):
		reason = "full"
	}
	m.failures.WithLabelValues(reason).Inc()
}
