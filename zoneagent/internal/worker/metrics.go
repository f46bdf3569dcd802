package worker

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Metrics of all terms of one agent.
type Metrics struct {
	steps            *prometheus.CounterVec
	seconds          *prometheus.HistogramVec
	finished, gaveUp *prometheus.CounterVec
	failures         *prometheus.CounterVec
	observed         *prometheus.CounterVec
	observing        prometheus.Histogram
	hosts            *prometheus.GaugeVec
	working          *prometheus.GaugeVec
	strangers        *prometheus.GaugeVec
}

// NewMetrics registers the metrics; r may be nil.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		steps: counter("naru_worker_steps_total", "Steps of VMs, by step and result (ok, temporary, fatal, fenced).", "step", "result"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "naru_worker_step_seconds", Help: "Time of a step: looking, deciding and the driver's calls.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}, []string{"step"}),
		finished: counter("naru_worker_finished_total", "Work on VMs that reached what was wanted, by its last step.", "step"),
		gaveUp:   counter("naru_worker_failed_total", "Work on VMs that failed, by the problem's code.", "code"),
		failures: counter("naru_worker_commit_failures_total", "Transactions that were not committed, by reason.", "reason"),
		observed: counter("naru_worker_rounds_total", "Looks at a host, by result (ok, silent).", "result"),
		observing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_worker_round_seconds", Help: "Time of a look at a host.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		hosts:     gauge("naru_worker_hosts", "Hosts by cluster id and health.", "cluster", "health"),
		working:   gauge("naru_worker_working_vms", "VMs with work, by cluster id.", "cluster"),
		strangers: gauge("naru_worker_unknown_vms", "VMs that were found on hosts and do not belong there, by cluster id.", "cluster"),
	}
	if r != nil {
		r.MustRegister(m.steps, m.seconds, m.finished, m.gaveUp, m.failures, m.observed, m.observing, m.hosts, m.working, m.strangers)
	}
	return m
}

func (m *Metrics) step(d deed, took time.Duration) {
	result := "ok"
	switch {
	case errors.Is(d.err, errLost):
		result = "fenced"
	case hypervisor.IsFatal(d.err):
		result = "fatal"
	case d.err != nil:
		result = "temporary"
	}
	m.steps.WithLabelValues(nameOf(d.move), result).Inc()
	m.seconds.WithLabelValues(nameOf(d.move)).Observe(took.Seconds())
}

func (m *Metrics) round(r round) {
	result := "ok"
	if r.err != nil {
		result = "silent"
	}
	m.observed.WithLabelValues(result).Inc()
	m.observing.Observe(time.Since(r.began).Seconds())
}

func (m *Metrics) failed(err error) {
	reason := "store"
	switch {
	case errors.Is(err, etcdstore.ErrConflict):
		reason = "conflict"
	case errors.Is(err, etcdstore.ErrFenced):
		reason = "fenced"
	case errors.Is(err, etcdstore.ErrFull):
		reason = "full"
	}
	m.failures.WithLabelValues(reason).Inc()
}

// count sets the gauges of a cluster.
func (m *Metrics) count(cluster string, hosts map[apiv1.Host_Health]int, working, strangers int) {
	for level, name := range apiv1.Host_Health_name {
		if level != 0 {
			m.hosts.WithLabelValues(cluster, name).Set(float64(hosts[apiv1.Host_Health(level)]))
		}
	}
	m.working.WithLabelValues(cluster).Set(float64(working))
	m.strangers.WithLabelValues(cluster).Set(float64(strangers))
}

// forget takes a cluster out of the gauges: another agent counts it from now on.
func (m *Metrics) forget(cluster string) {
	for _, g := range []*prometheus.GaugeVec{m.hosts, m.working, m.strangers} {
		g.DeletePartialMatch(prometheus.Labels{"cluster": cluster})
	}
}
