package api

import "github.com/prometheus/client_golang/prometheus"

// metrics are the API's own. The labels are methods and codes, which are few and known.
type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	streams prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_api_calls_total", Help: "Calls that ended, by method and code; OK is success.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "naru_api_call_seconds", Help: "How long calls took; a watch counts whole.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_api_streams", Help: "Watches under way.",
		}),
	}
	r.MustRegister(m.calls, m.seconds, m.streams)
	return m
}
