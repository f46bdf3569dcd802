package zonehub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Budget is how fast each zone may have this server propose, so that one which floods fills neither the log nor the state
// (P15). Whoever is beyond it waits: what is not acknowledged stays in the zone, and nothing is lost. How much is kept of what
// comes through is bounded by the state machine.
type Budget struct {
	Commands, Entries, Bytes Pace
	// Usage is of entries that are kept for ever; each VM of the zone adds UsagePerVM to it. Log is of those of the zone's own log, which
	// are kept for ever as well.
	Usage, UsagePerVM, Log Pace
	// After a zone has waited for Tell in one spell, not only for commands, people are told; a spell is over when it has not waited for Calm.
	Tell, Calm time.Duration
}

// Pace is so many a second, and a burst.
type Pace struct {
	PerSecond float64
	Burst     int
}

// DefaultBudget is far above what the busiest honest zone needs for long: a VM that is made takes some nine entries and 4 KiB,
// and a zone may make thousands a second for a while.
func DefaultBudget() Budget {
	return Budget{
		Commands: Pace{50, 1000}, Entries: Pace{20_000, 100_000}, Bytes: Pace{16 << 20, 64 << 20},
		Usage: Pace{2, 1000}, UsagePerVM: Pace{0.2, 8}, Log: Pace{1, 5000},
		Tell: 10 * time.Second, Calm: time.Minute,
	}
}

// least is what one command may need at once, whatever the budget.
const (
	leastEntries = 256
	leastBytes   = 4 << 20
)

// countVMsEvery is how old the number of a zone's VMs may be that its budget rests on.
const countVMsEvery = 30 * time.Second

// paced is the reason that people are not told: what changes in a zone is sent as soon as what was sent before is acknowledged, so
// that an honest one, too, comes to the budget of commands. Made to wait, it says more with each.
const paced = "COMMANDS"

// signed is how many entries one counts for besides whose signatures are checked before it is proposed: a countersignature, of which an
// honest zone sends one a minute, and a line of the zone's own log.
const signed = 127

// need is what one command takes of a budget.
type need struct{ entries, usage, log, bytes int }

func needOf(b *linkv1.JournalBatch) need {
	n := need{entries: len(b.GetEntries()), bytes: proto.Size(b)}
	for _, e := range b.GetEntries() {
		if e.GetUsage() != nil {
			n.usage++
		}
		if e.GetLocalEntry() != nil || e.GetVmOverride() != nil {
			n.log++
		}
		if e.GetCountersignature() != nil || e.GetLocalEntry() != nil {
			n.entries += signed
		}
	}
	return n
}

// allowance is one zone's budget on this server, over all its sessions. Safe for concurrent use.
type allowance struct {
	hub                                  *Hub
	zone                                 *apiv1.Zone
	commands, entries, usage, log, bytes *rate.Limiter

	mu      sync.Mutex
	counted time.Time     // when its VMs were
	spell   time.Duration // how long it has waited in this spell
	waited  time.Time     // when it last did
	told    string        // the reason that people know
}

func (h *Hub) allowanceOf(zone *apiv1.Zone) *allowance {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.allowances[zone.GetId()]
	if a == nil {
		limiter := func(p Pace, least int) *rate.Limiter {
			return rate.NewLimiter(rate.Limit(p.PerSecond), max(p.Burst, least))
		}
		a = &allowance{
			hub: h, zone: zone, commands: limiter(h.Budget.Commands, 1), entries: limiter(h.Budget.Entries, leastEntries),
			usage: limiter(h.Budget.Usage, leastEntries), log: limiter(h.Budget.Log, leastEntries), bytes: limiter(h.Budget.Bytes, leastBytes),
		}
		h.allowances[zone.GetId()] = a
	}
	return a
}

// wait returns when the zone may have one more command proposed, or when ctx ends.
func (a *allowance) wait(ctx context.Context, n need) error {
	now := time.Now()
	if n.usage > 0 {
		if err := a.countVMs(ctx, now); err != nil {
			return err
		}
	}
	var delay time.Duration
	var reserved []*rate.Reservation
	reason := ""
	for _, l := range []struct {
		limiter *rate.Limiter
		n       int
		reason  string
	}{{a.commands, 1, paced}, {a.entries, n.entries, "ENTRIES"}, {a.usage, n.usage, "USAGE"}, {a.log, n.log, "LOG"}, {a.bytes, n.bytes, "BYTES"}} {
		if l.n == 0 {
			continue // who needs none of it does not wait for it
		}
		r := l.limiter.ReserveN(now, min(l.n, l.limiter.Burst()))
		reserved = append(reserved, r)
		if d := r.DelayFrom(now); d > delay {
			delay, reason = d, l.reason
		}
	}
	long := delay
	if reason == paced {
		long = 0
	}
	a.note(ctx, now, long, reason)
	if delay == 0 {
		return nil
	}
	a.hub.slowed.WithLabelValues(a.zone.GetName(), reason).Add(delay.Seconds())
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		// Nothing is proposed, and the next session says it again.
		for _, r := range reserved {
			r.Cancel()
		}
		return context.Cause(ctx)
	}
}

// countVMs lets the zone report usage as fast as its VMs may need.
func (a *allowance) countVMs(ctx context.Context, now time.Time) error {
	a.mu.Lock()
	due := now.Sub(a.counted) >= countVMsEvery
	if due {
		a.counted = now
	}
	a.mu.Unlock()
	if !due {
		return nil
	}
	var vms uint64
	err := a.hub.view(ctx, func(tx *state.Tx) (err error) {
		vms, err = tx.VMs.Count(state.Scope{"zone_id": a.zone.GetId()}, "")
		return err
	})
	b := a.hub.Budget
	a.usage.SetLimitAt(now, rate.Limit(b.Usage.PerSecond+float64(vms)*b.UsagePerVM.PerSecond))
	a.usage.SetBurstAt(now, max(b.Usage.Burst+int(vms)*b.UsagePerVM.Burst, leastEntries))
	return err
}

// note keeps how long the zone has waited, and tells people when that is long and when it is over.
func (a *allowance) note(ctx context.Context, now time.Time, delay time.Duration, reason string) {
	a.mu.Lock()
	if now.Sub(a.waited) >= a.hub.Budget.Calm {
		a.spell = 0
	}
	if delay > 0 {
		a.spell += delay
		a.waited = now.Add(delay)
	}
	was := a.told
	if a.spell >= a.hub.Budget.Tell && a.told == "" {
		a.told = reason
	} else if a.spell == 0 {
		a.told = ""
	}
	is := a.told
	a.mu.Unlock()
	if was != is {
		a.tell(ctx, is)
	}
}

// settle tells people when a spell is over, though the zone says nothing that could wait.
func (a *allowance) settle(ctx context.Context) { a.note(ctx, time.Now(), 0, "") }

// rest forgets what people were told: what holds of a zone in one session does not hold of the next.
func (a *allowance) rest() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told, a.spell = "", 0
}

func (a *allowance) tell(ctx context.Context, reason string) {
	is := &apiv1.Zone_Condition{Type: "SLOWED", Reason: reason}
	if reason != "" {
		is.Message = fmt.Sprintf("zone %s says more than its budget of %s allows and is made to wait; nothing is lost, it is kept in the zone. "+
			"Look at its agents, and quarantine the zone if one lies", a.zone.GetName(), words[reason])
		a.hub.Log.Warn("a zone is made to wait", "zone", a.zone.GetName(), "reason", reason)
	}
	err := a.hub.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SetZoneCondition{SetZoneCondition: &commandv1.SetZoneCondition{
		ZoneId: a.zone.GetId(), Condition: is, Over: reason == "",
	}}})
	if err != nil && ctx.Err() == nil {
		a.hub.Log.Warn("it could not be written down whether a zone is made to wait", "zone", a.zone.GetName(), "error", err)
	}
}

var words = map[string]string{"ENTRIES": "journal entries", "USAGE": "usage", "LOG": "entries of its own log", "BYTES": "bytes"}

func slowedSeconds(r prometheus.Registerer) *prometheus.CounterVec {
	return promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: "naru_hub_slowed_seconds_total", Help: "How long zones were made to wait because they said more than they may.",
	}, []string{"zone", "reason"})
}
