package replica

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commit          prometheus.Histogram
	batch           prometheus.Histogram
	proposed        *prometheus.CounterVec
	applied         prometheus.Gauge
	leader          prometheus.Gauge
	applyBlocked    prometheus.Gauge
	snapshotSeconds prometheus.Histogram
	snapshotBytes   prometheus.Gauge
	logBytes        prometheus.Gauge
	forwarded       prometheus.Counter
	retried         prometheus.Counter
	reads           prometheus.Counter
	readRounds      prometheus.Counter
	clockJumps      prometheus.Counter
	refusedPeers    prometheus.Counter
	comparisons     prometheus.Counter
	diverged        prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "naru_raft_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "naru_raft_" + name, Help: help})
	}
	m := &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "naru_raft_commit_seconds",
			Help: "From proposing a command on the leader to its being applied there.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "naru_raft_apply_batch_entries",
			Help: "Entries applied in one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 11)}),
		proposed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "naru_raft_proposed_total",
			Help: "Commands that this server, as the leader, put into the log, by what they do."}, []string{"command"}),
		snapshotSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "naru_raft_snapshot_seconds",
			Help: "Time to write a snapshot.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 8)}),
		applied:       gauge("applied_index", "Last entry of the log that was applied."),
		leader:        gauge("is_leader", "1 while this server leads and serves."),
		applyBlocked:  gauge("apply_blocked", "1 while the state cannot be written."),
		snapshotBytes: gauge("snapshot_bytes", "Size of the last snapshot that was written."),
		logBytes:      gauge("log_bytes_since_snapshot", "Bytes appended to the log since the last snapshot."),
		forwarded:     counter("forwarded_total", "Commands sent on to the leader, repetitions included."),
		retried:       counter("retried_total", "Commands proposed again because it was unknown what became of them."),
		reads:         counter("reads_total", "Linearizable reads asked for."),
		readRounds:    counter("read_rounds_total", "Rounds of asking a majority, each for all reads that waited."),
		clockJumps:    counter("clock_jumps_total", "Jumps of the wall clock that the monotonic clock did not see."),
		refusedPeers:  counter("refused_peers_total", "Connections refused because their certificate is no server's."),
		comparisons:   counter("state_comparisons_total", "Comparisons, on the leader, that found the servers' states alike."),
		diverged:      gauge("state_diverged", "1 while the servers' states differ, as of the newest comparison."),
	}
	r.MustRegister(m.commit, m.batch, m.proposed, m.applied, m.leader, m.applyBlocked, m.snapshotSeconds, m.snapshotBytes, m.logBytes,
		m.forwarded, m.retried, m.reads, m.readRounds, m.clockJumps, m.refusedPeers, m.comparisons, m.diverged)
	return m
}
