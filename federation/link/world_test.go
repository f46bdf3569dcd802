package link

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/federation/wire"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const zoneID = "0192f0c1-2d3e-7f40-8a5b-000000000001"

// checkers are compiled once: they are immutable, and compiling them takes a while.
var (
	atEnd    = sync.OnceValue(func() *wire.Checker { return must(wire.NewChecker(wire.AtEnd)) })
	atBroker = sync.OnceValue(func() *wire.Checker { return must(wire.NewChecker(wire.AtBroker)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// world is a zone, a control plane and what stands between them.
type world struct {
	registry registry
	zoneKey  *member
	hubKey   *member

	numbers Numbers
	epoch   uint64
	epochID []byte
	lost    bool
	refused *Goodbye

	// The zone's side of the link and the hub's; up is what flows from the zone.
	zoneObjects, hubObjects *objects
	zoneCopies, hubCopies   *copies
	zoneLedger, hubLedger   *ledger
	zoneBook, hubBook       *book
	samples                 *Samples
	box                     *sampleBox
	calls                   CallHandler

	zone *ZoneEnd
	hub  *HubEnd

	zoneTrouble, hubTrouble *trouble
	zoneMetrics, hubMetrics *Metrics

	// path joins a zone's stream with a hub's, and may be hostile; nil joins them as they are.
	path func(ctx context.Context, n int, zone, hub *MemoryStream)

	mu       sync.Mutex
	dials    int
	zoneEnds []error
	hubEnds  []error
	opened   []*Opened
	wg       sync.WaitGroup
}

func newWorld() *world {
	w := &world{
		numbers: Numbers{Incarnation: "first"}, epoch: 1763000000, epochID: []byte("epoch-id-one-000"),
		zoneTrouble: &trouble{}, hubTrouble: &trouble{}, box: &sampleBox{}, zoneMetrics: NewMetrics(nil), hubMetrics: NewMetrics(nil),
	}
	w.zoneKey = w.registry.join("zone/"+zoneID+"/agent/a1", zoneID)
	w.hubKey = w.registry.join("server/one", "")
	w.zoneObjects, w.hubObjects = newObjects(0, "first"), newObjects(w.epoch, "")
	w.zoneCopies, w.hubCopies = newCopies(w.zoneTrouble), newCopies(w.hubTrouble)
	w.zoneLedger, w.hubLedger = newLedger("first"), newLedger("1763000000")
	w.zoneBook, w.hubBook = newBook(w.zoneTrouble), newBook(w.hubTrouble)
	w.samples = NewSamples(1000, w.zoneMetrics)
	w.calls = handlerFunc(echo)
	return w
}

// echo answers a GetVM with a VM of the asked name.
func echo(ctx context.Context, c *Call) error {
	var in apiv1.GetVMRequest
	if err := proto.Unmarshal(c.Body, &in); err != nil {
		return err
	}
	return c.Send(ctx, must(proto.Marshal(&apiv1.GetVMResponse{Vm: &apiv1.VM{Name: in.Vm}})))
}

// build makes the two ends.
func (w *world) build() *world {
	w.zone = must(NewZoneEnd(ZoneConfig{
		Common:  Common{Identity: IdentityOf(w.zoneKey), Verify: w.registry.verify, Checker: atEnd(), Version: "v1", Metrics: w.zoneMetrics},
		Classes: Classes{StateSource: w.zoneObjects, StateSink: w.zoneCopies, JournalSource: w.zoneLedger, JournalSink: w.zoneBook},
		Numbers: func(context.Context) (Numbers, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.numbers, nil
		},
		Opened: func(_ context.Context, o *Opened) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.numbers.Epoch, w.numbers.EpochID = o.Welcome.Epoch, o.Welcome.EpochId
			w.opened = append(w.opened, o)
			return nil
		},
		Samples: w.samples,
	}))
	w.hub = must(NewHubEnd(HubConfig{
		Common: Common{Identity: IdentityOf(w.hubKey), Verify: w.registry.verify, Checker: atEnd(), Metrics: w.hubMetrics},
		Admit: func(context.Context, Peer, *linkv1.Hello) (*Admission, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.refused != nil {
				return &Admission{Epoch: w.epoch, EpochID: w.epochID, Refused: w.refused}, nil
			}
			return &Admission{
				Classes: Classes{StateSource: w.hubObjects, StateSink: w.hubCopies, JournalSource: w.hubLedger, JournalSink: w.hubBook},
				Epoch:   w.epoch, EpochID: w.epochID, IncarnationLost: w.lost,
				Calls: w.calls, Samples: w.box,
			}, nil
		},
	}))
	return w
}

// dial opens a path for the zone's end; the hub's end takes it up at once.
func (w *world) dial(hubCtx context.Context) Dial {
	return func(ctx context.Context) (Path, error) {
		w.mu.Lock()
		w.dials++
		n := w.dials
		w.mu.Unlock()
		zone, between := Pipe(ctx, 4)
		w.wg.Go(func() {
			err := w.hub.Run(hubCtx, func(ctx context.Context) (Path, error) {
				hub, far := Pipe(ctx, 4)
				w.wg.Go(func() { w.join(ctx, n, between, far) })
				return Path{Stream: hub, Zone: zoneID}, nil
			})
			between.Close()
			w.mu.Lock()
			defer w.mu.Unlock()
			w.hubEnds = append(w.hubEnds, err)
		})
		return Path{Stream: zone}, nil
	}
}

func (w *world) join(ctx context.Context, n int, zone, hub *MemoryStream) {
	if w.path != nil {
		w.path(ctx, n, zone, hub)
		return
	}
	relay(zone, hub, pass, pass)
}

// pass lets every frame through.
func pass(f *linkv1.Frame) ([]*linkv1.Frame, []*linkv1.Frame) { return []*linkv1.Frame{f}, nil }

// relay carries frames both ways through what stands between: for each frame, what goes on and what goes back.
func relay(zone, hub *MemoryStream, up, down func(*linkv1.Frame) (on, back []*linkv1.Frame)) {
	var both sync.WaitGroup
	carry := func(from, to *MemoryStream, through func(*linkv1.Frame) (on, back []*linkv1.Frame)) {
		defer from.Close()
		defer to.Close()
		for {
			f, err := from.Recv()
			if err != nil {
				return
			}
			on, back := through(f)
			if on == nil && back == nil {
				return // cut
			}
			for _, f := range back {
				if from.Send(f) != nil {
					return
				}
			}
			for _, f := range on {
				if to.Send(f) != nil {
					return
				}
			}
		}
	}
	both.Go(func() { carry(zone, hub, up) })
	both.Go(func() { carry(hub, zone, down) })
	both.Wait()
}

// broker is what a real one does with a frame.
func broker(d linkv1.Direction) func(*linkv1.Frame) (on, back []*linkv1.Frame) {
	return func(f *linkv1.Frame) (on, back []*linkv1.Frame) {
		_, refusal := atBroker().Check(f, d)
		switch {
		case refusal == nil:
			return []*linkv1.Frame{f}, nil
		case refusal.Hostile:
			return nil, nil
		}
		withheld, refused, err := atBroker().Withhold(f, refusal)
		if err != nil {
			panic(err)
		}
		return []*linkv1.Frame{withheld}, []*linkv1.Frame{refused}
	}
}

func brokered(_ context.Context, _ int, zone, hub *MemoryStream) {
	relay(zone, hub, broker(linkv1.Direction_UP), broker(linkv1.Direction_DOWN))
}

// keep runs one session after another, as a zone agent does.
func (w *world) keep(zoneCtx, hubCtx context.Context) {
	for zoneCtx.Err() == nil {
		err := w.zone.Run(zoneCtx, w.dial(hubCtx))
		w.mu.Lock()
		w.zoneEnds = append(w.zoneEnds, err)
		w.mu.Unlock()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-zoneCtx.Done():
		}
	}
}

// start keeps a session up until the test ends.
func (w *world) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.wg.Go(func() { w.keep(ctx, ctx) })
	t.Cleanup(func() {
		cancel()
		w.wg.Wait()
	})
	synctest.Wait()
}

// once runs one session to its end and returns what both ends say.
func (w *world) once(ctx context.Context) (zone, hub error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Hour)
	defer cancel()
	zone = w.zone.Run(ctx, w.dial(ctx))
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return zone, w.hubEnds[len(w.hubEnds)-1]
}

// bubble runs a test in a bubble of its own time; every goroutine must have ended with it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	atEnd()
	atBroker()
	synctest.Test(t, f)
}

// await waits until there is nothing to say against, for so long.
func await(within time.Duration, against func() string) string {
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		synctest.Wait()
		if said := against(); said == "" || time.Now().After(end) {
			return said
		}
	}
}
