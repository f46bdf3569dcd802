package state

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commits     prometheus.Histogram
	checkpoints prometheus.Histogram
	walBytes    prometheus.Gauge
	diskFull    prometheus.Gauge
	restores    prometheus.Counter
	views       prometheus.Gauge
}

// newMetrics makes the package's metrics and registers them with r, if any.
func newMetrics(r prometheus.Registerer) *metrics {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 16)
	m := &metrics{
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_state_commit_seconds", Help: "Time of one write transaction, with all commands in it.", Buckets: buckets}),
		checkpoints: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_state_checkpoint_seconds", Help: "Time of moving the write-ahead log into the database file.", Buckets: buckets}),
		walBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_state_wal_bytes", Help: "Size of the write-ahead log."}),
		diskFull: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_state_disk_full", Help: "1 while a write waits for space on the disk."}),
		restores: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_state_restores_total", Help: "Snapshots that have replaced the state."}),
		views: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_state_views", Help: "Reads in progress."}),
	}
	if r != nil {
		r.MustRegister(m.commits, m.checkpoints, m.walBytes, m.diskFull, m.restores, m.views)
	}
	return m
}
