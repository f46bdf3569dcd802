package link

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"

	"github.com/naru-project/naru/federation/wire"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Metrics are an end's figures; way is "up" or "down". Several ends of one process may share them.
type Metrics struct {
	sending, receiving   map[wire.Class][2]flow // by direction: up, down
	frameRefused         *prometheus.CounterVec // class, way: of what this end sent
	frameWithheld        *prometheus.CounterVec // class, way: of what this end would have received
	sessions             prometheus.Gauge
	sessionsEnded        *prometheus.CounterVec // cause
	openSeconds          prometheus.Histogram
	acknowledgeSeconds   *prometheus.HistogramVec // class
	objectsSkipped       prometheus.Counter
	callsRunning         prometheus.Gauge
	calls                *prometheus.CounterVec // code
	callSeconds          prometheus.Histogram
	samplesDropped       prometheus.Counter
	samplesDroppedRemote prometheus.Counter
}

// NewMetrics registers the figures with r; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "naru_link_" + name, Help: help}, labels)
	}
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	return &Metrics{
		sending: flows(counter("sent_frames_total", "Frames sent.", "class", "way"),
			counter("sent_payload_bytes_total", "Payload sent.", "class", "way")),
		receiving: flows(counter("received_frames_total", "Frames received and accepted.", "class", "way"),
			counter("received_payload_bytes_total", "Payload received and accepted.", "class", "way")),
		frameRefused:  counter("refused_frames_total", "Frames of this end that a broker refused.", "class", "way"),
		frameWithheld: counter("withheld_frames_total", "Frames for this end that a broker withheld.", "class", "way"),
		sessions:      f.NewGauge(prometheus.GaugeOpts{Name: "naru_link_sessions", Help: "Open sessions."}),
		sessionsEnded: counter("sessions_ended_total", "Sessions that ended, or did not open.", "cause"),
		openSeconds: f.NewHistogram(prometheus.HistogramOpts{Name: "naru_link_open_seconds",
			Help: "From dialling to an open session.", Buckets: seconds}),
		acknowledgeSeconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "naru_link_acknowledge_seconds",
			Help: "From sending a chunk or batch to its acknowledgement.", Buckets: seconds}, []string{"class"}),
		objectsSkipped: f.NewCounter(prometheus.CounterOpts{Name: "naru_link_skipped_objects_total",
			Help: "Objects that a broker refused and that were left out of the state."}),
		callsRunning: f.NewGauge(prometheus.GaugeOpts{Name: "naru_link_calls", Help: "Calls that are being carried out."}),
		calls:        counter("calls_total", "Calls that ended.", "code"),
		callSeconds: f.NewHistogram(prometheus.HistogramOpts{Name: "naru_link_call_seconds",
			Help: "Time of a call, streams included.", Buckets: seconds}),
		samplesDropped: f.NewCounter(prometheus.CounterOpts{Name: "naru_link_dropped_samples_total",
			Help: "Samples dropped at this end."}),
		samplesDroppedRemote: f.NewCounter(prometheus.CounterOpts{Name: "naru_link_dropped_remote_samples_total",
			Help: "Samples that the other end says it dropped."}),
	}
}

func way(d linkv1.Direction) string {
	if d == linkv1.Direction_UP {
		return "up"
	}
	return "down"
}

// flow is what passes of one class in one direction. It is looked up once, because every frame counts.
type flow struct{ frames, bytes prometheus.Counter }

func flows(frames, bytes *prometheus.CounterVec) map[wire.Class][2]flow {
	all := map[wire.Class][2]flow{}
	for _, c := range []wire.Class{wire.ClassOpening, wire.ClassState, wire.ClassJournal, wire.ClassCall, wire.ClassSample, wire.ClassControl} {
		var both [2]flow
		for i, d := range []linkv1.Direction{linkv1.Direction_UP, linkv1.Direction_DOWN} {
			both[i] = flow{frames.WithLabelValues(string(c), way(d)), bytes.WithLabelValues(string(c), way(d))}
		}
		all[c] = both
	}
	return all
}

func (f flow) count(bytes int) {
	f.frames.Inc()
	f.bytes.Add(float64(bytes))
}

func (m *Metrics) sent(c wire.Class, d linkv1.Direction, bytes int) {
	m.sending[c][d-linkv1.Direction_UP].count(bytes)
}

func (m *Metrics) received(c wire.Class, d linkv1.Direction, bytes int) {
	m.receiving[c][d-linkv1.Direction_UP].count(bytes)
}

func (m *Metrics) refused(c wire.Class, d linkv1.Direction) {
	m.frameRefused.WithLabelValues(string(c), way(d)).Inc()
}

func (m *Metrics) withheld(c wire.Class, d linkv1.Direction) {
	m.frameWithheld.WithLabelValues(string(c), way(d)).Inc()
}

func (m *Metrics) acknowledged(c wire.Class, since time.Time) {
	m.acknowledgeSeconds.WithLabelValues(string(c)).Observe(time.Since(since).Seconds())
}

func (m *Metrics) called(code codes.Code, began time.Time) {
	m.calls.WithLabelValues(code.String()).Inc()
	m.callSeconds.Observe(time.Since(began).Seconds())
}

func (m *Metrics) ended(cause error) { m.sessionsEnded.WithLabelValues(Cause(cause)).Inc() }

// brokersWords are what a broker says of a session's end, and what that is called.
var brokersWords = map[string]string{
	"agent_left": "AGENT_LEFT", "server_left": "STREAM", "superseded": CodeSuperseded, "revoked": CodeRevoked, "expired": "EXPIRED",
	"hostile": "HOSTILE", "stopping": "BROKER_STOPPING",
}

// Cause names why a session ended, or never opened, in one of few words.
func Cause(cause error) string {
	var path interface{ EndedBecause() string } // a stream that a broker has ended, with its word for it
	if errors.As(cause, &path) {
		if label := brokersWords[path.EndedBecause()]; label != "" {
			return label
		}
	}
	var g *Goodbye
	if errors.As(cause, &g) {
		switch g.Code {
		case CodeSuperseded, CodeRevoked, CodeNoLeader, CodeShuttingDown, CodeProtocol, CodeQuarantined, CodeWrongBroker:
			return g.Code
		}
		return "GOODBYE"
	}
	for _, known := range []struct {
		err   error
		label string
	}{
		{ErrIdentity, "IDENTITY"}, {ErrProtocol, CodeProtocol}, {ErrWithheld, "WITHHELD"}, {ErrSilent, "SILENT"}, {ErrSchema, "SCHEMA"},
		{ErrOldEpoch, "OLD_EPOCH"}, {ErrQuarantine, CodeQuarantined}, {ErrIncarnationLost, "INCARNATION_LOST"}, {errStream, "STREAM"},
	} {
		if errors.Is(cause, known.err) {
			return known.label
		}
	}
	return "OTHER"
}
