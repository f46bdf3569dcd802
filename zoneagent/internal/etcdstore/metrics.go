package etcdstore

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	commits      *prometheus.CounterVec
	commitTime   prometheus.Histogram
	operations   prometheus.Histogram
	merged       prometheus.Histogram
	incarnations prometheus.Counter
	size         prometheus.Gauge
	quota        prometheus.Gauge
	behind       prometheus.Gauge
	members      *prometheus.GaugeVec
	unclaimed    prometheus.Counter
	refused      *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_etcdstore_commits_total", Help: "Fenced transactions by outcome.",
		}, []string{"outcome"}),
		commitTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_etcdstore_commit_seconds", Help: "Time of one etcd transaction.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		operations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_etcdstore_commit_operations", Help: "Writes in one etcd transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 13),
		}),
		merged: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "naru_etcdstore_commit_merged", Help: "Fenced transactions that went together in one of etcd's.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		incarnations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_etcdstore_incarnations_total", Help: "Incarnations that this agent has minted.",
		}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_etcdstore_size_bytes", Help: "Size of the largest member's database.",
		}),
		quota: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_etcdstore_quota_bytes", Help: "Quota of the database.",
		}),
		behind: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "naru_etcdstore_behind", Help: "1 while the store may know less than it knew, and nothing is done to VMs.",
		}),
		members: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "naru_etcdstore_members", Help: "Members of the zone's etcd by role: voter, or learner, which has to catch up before it votes.",
		}, []string{"role"}),
		unclaimed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "naru_etcdstore_unclaimed_total", Help: "Desired objects that a full sync did not name.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naru_etcdstore_refused_total", Help: "What was received and not taken, by reason.",
		}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.commits, m.commitTime, m.operations, m.merged, m.incarnations, m.size, m.quota, m.behind, m.members, m.unclaimed, m.refused)
	}
	return m
}
