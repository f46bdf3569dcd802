package link

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// maxHostSamples and maxVMSamples of one batch.
	maxHostSamples = 1024
	maxVMSamples   = 4096
	// sampleWindow is how many batches the hub's end keeps for a sink that is busy.
	sampleWindow = 4
)

// Samples is where a zone's metrics wait for the link: a bounded ring, out of which the oldest fall, counted. It
// outlives sessions; what was given to one that then broke is counted as dropped. Safe for concurrent use.
type Samples struct {
	metrics *Metrics
	changed chan struct{}

	mu      sync.Mutex
	ring    []sample
	first   int
	count   int
	dropped uint32
}

type sample struct {
	host *apiv1.HostSample
	vm   *apiv1.VMSample
}

// NewSamples returns a ring for so many samples.
func NewSamples(capacity int, m *Metrics) *Samples {
	return &Samples{metrics: m, ring: make([]sample, max(capacity, 1)), changed: make(chan struct{}, 1)}
}

// Add puts samples in. It never waits; the samples are the ring's from then on.
func (r *Samples) Add(hosts []*apiv1.HostSample, vms []*apiv1.VMSample) {
	r.mu.Lock()
	for _, h := range hosts {
		r.addLocked(sample{host: h})
	}
	for _, v := range vms {
		r.addLocked(sample{vm: v})
	}
	some := r.count > 0
	r.mu.Unlock()
	if some {
		signal(r.changed)
	}
}

func (r *Samples) addLocked(s sample) {
	if r.count == len(r.ring) {
		r.ring[r.first] = sample{}
		r.first = (r.first + 1) % len(r.ring)
		r.count--
		r.drop(1)
	}
	r.ring[(r.first+r.count)%len(r.ring)] = s
	r.count++
}

func (r *Samples) drop(n int) {
	r.dropped += uint32(n)
	r.metrics.samplesDropped.Add(float64(n))
}

// take takes out the oldest samples that fit a frame; nil when there are none.
func (r *Samples) take() *linkv1.SampleBatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 {
		return nil
	}
	b := &linkv1.SampleBatch{Dropped: r.dropped}
	r.dropped = 0
	for size := 0; r.count > 0 && size < pieceBytes && len(b.Hosts) < maxHostSamples && len(b.Vms) < maxVMSamples; r.count-- {
		s := r.ring[r.first]
		r.ring[r.first] = sample{}
		r.first = (r.first + 1) % len(r.ring)
		if s.host != nil {
			b.Hosts, size = append(b.Hosts, s.host), size+proto.Size(s.host)+4
		} else {
			b.Vms, size = append(b.Vms, s.vm), size+proto.Size(s.vm)+4
		}
	}
	if r.count > 0 {
		signal(r.changed)
	}
	return b
}

// lost takes a batch back that no session delivered: its samples count as dropped, and what it would have reported is
// reported by the next.
func (r *Samples) lost(b *linkv1.SampleBatch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += b.Dropped
	r.drop(len(b.Hosts) + len(b.Vms))
}

// signal makes a level-triggered channel ready.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sendSamples is a zone's loop.
func (s *session) sendSamples(r *Samples) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			b := r.take()
			if b == nil {
				select {
				case <-r.changed:
					continue
				case <-ctx.Done():
					return nil
				}
			}
			if err := s.post(ctx, s.sample, linkv1.Type_SAMPLE_BATCH, b); err != nil {
				r.lost(b)
				return err
			}
		}
	}
}

// joinSamples gives the session's sample class its loop: r at a zone's end, sink at the hub's.
func (s *session) joinSamples(r *Samples, sink SampleSink) {
	var inbox chan *linkv1.SampleBatch
	if r != nil {
		s.loops = append(s.loops, s.sendSamples(r))
	}
	if sink != nil {
		inbox = make(chan *linkv1.SampleBatch, sampleWindow)
		s.loops = append(s.loops, func(ctx context.Context) error {
			for {
				select {
				case b := <-inbox:
					sink.Take(b)
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	s.onSample = func(m proto.Message, f *linkv1.Frame) error {
		switch m := m.(type) {
		case *linkv1.SampleBatch:
			s.metrics.samplesDroppedRemote.Add(float64(m.Dropped))
			select {
			case inbox <- m:
			default: // the sink is busy, or there is none
				s.metrics.samplesDropped.Add(float64(len(m.Hosts) + len(m.Vms)))
			}
			return nil
		case *linkv1.Refused, *linkv1.Withheld:
			return nil // counted, and dropped
		}
		return broken("%s among samples", f.Type)
	}
}
