package worker

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

const (
	running = apiv1.VM_RUNNING
	halted  = apiv1.VM_STOPPED
	deleted = apiv1.VM_DELETED
	young   = apiv1.VM_BUILDING
)

func TestTheNextMoveFollowsFromWhatIsWantedDoneAndSeen(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	seen := func(p apiv1.VM_Power, ready ...bool) hypervisor.Observation {
		return hypervisor.Observation{Power: p, Ready: len(ready) > 0}
	}
	for _, c := range []struct {
		name   string
		wanted apiv1.VM_State
		is     apiv1.VM_State
		last   string
		seen   hypervisor.Observation
		change func(*view)
		want   move
	}{
		{"a new VM begins with its image", running, young, stepPlaced, seen(apiv1.VM_MISSING), nil, image},
		{"then its disk", running, young, stepImage, seen(apiv1.VM_MISSING), nil, disk},
		{"then its seed", running, young, stepDisk, seen(apiv1.VM_MISSING), nil, seed},
		{"then the host is told", running, young, stepSeed, seen(apiv1.VM_MISSING), nil, define},
		{"then it is started", running, young, stepDefine, seen(apiv1.VM_OFF), nil, start},
		{"a definition that was not recorded is no harm", running, young, stepDisk, seen(apiv1.VM_OFF), nil, seed},
		{"a definition that the host lost is made again", running, young, stepDefine, seen(apiv1.VM_MISSING), nil, image},
		{"it is awaited while it boots", running, young, stepStart, seen(apiv1.VM_ON), nil, wait},
		{"and is done when it can be used", running, young, stepStart, seen(apiv1.VM_ON, true), nil, runs},
		{"one that fell over while it booted is started again", running, young, stepStart, seen(apiv1.VM_OFF), nil, start},
		{"but not for ever", running, young, stepStart, seen(apiv1.VM_OFF), func(v *view) { v.starts = startsAllowed }, flapping},
		{"one that says nothing until the deadline runs all the same", running, young, stepStart, seen(apiv1.VM_ON), overdueView, silent},
		{"one that is not on at the deadline is late", running, young, stepDefine, seen(apiv1.VM_OFF), overdueView, late},
		{"a whole VM is started as it is", running, halted, stepPlaced, seen(apiv1.VM_OFF), nil, start},
		{"a paused one is resumed", running, running, stepPlaced, seen(apiv1.VM_PAUSED), nil, start},
		{"a whole VM that its host lost is not built anew", running, halted, stepPlaced, seen(apiv1.VM_MISSING), nil, lost},
		{"nothing is done while nobody can say", running, running, stepPlaced, seen(apiv1.VM_UNKNOWN), nil, wait},
		{"a guest is asked to stop", halted, running, stepPlaced, seen(apiv1.VM_ON), nil, askStop},
		{"and given time", halted, running, stepStop, seen(apiv1.VM_ON), asked(now, 10*time.Second), wait},
		{"until its grace ends", halted, running, stepStop, seen(apiv1.VM_ON), asked(now, time.Minute), cutPower},
		{"by force it is cut at once", halted, running, stepPlaced, seen(apiv1.VM_ON), byForce, cutPower},
		{"off is stopped", halted, running, stepStop, seen(apiv1.VM_OFF), nil, stopped},
		{"a VM that is to be born stopped is built first", halted, young, stepPlaced, seen(apiv1.VM_MISSING), nil, image},
		{"all but started", halted, young, stepDefine, seen(apiv1.VM_OFF), nil, stopped},
		{"one that is lost cannot be stopped", halted, running, stepPlaced, seen(apiv1.VM_MISSING), nil, lost},
		{"a guest in use is asked before it is deleted", deleted, running, stepPlaced, seen(apiv1.VM_ON), used, askStop},
		{"one that never came up is not", deleted, young, stepStart, seen(apiv1.VM_ON), nil, remove},
		{"one that is off is removed", deleted, halted, stepPlaced, seen(apiv1.VM_OFF), nil, remove},
		{"one that the host does not know may have a disk there", deleted, young, stepDisk, seen(apiv1.VM_MISSING), nil, remove},
		{"and is gone once it was removed", deleted, young, stepGone, seen(apiv1.VM_MISSING), nil, gone},
		{"also when that took long", deleted, young, stepGone, seen(apiv1.VM_MISSING), overdueView, gone},
		{"what came back after its removal is removed again", deleted, young, stepGone, seen(apiv1.VM_OFF), nil, remove},
	} {
		v := view{
			wanted: &apiv1.VM{DesiredState: c.wanted}, is: &apiv1.VM{State: c.is}, seen: c.seen, now: now, grace: time.Minute,
			work: &zonev1.Work{LastStep: c.last, Deadline: timestamppb.New(now.Add(time.Minute))},
		}
		if c.change != nil {
			c.change(&v)
		}
		if got := v.next(); got != c.want {
			t.Errorf("%s: move %d, want %d", c.name, got, c.want)
		}
	}
}

func overdueView(v *view) { v.work.Deadline = timestamppb.New(v.now.Add(-time.Second)) }
func byForce(v *view)     { v.wanted.Force = true }
func used(v *view)        { v.is.UsableAt = timestamppb.New(v.now) }
func asked(now time.Time, ago time.Duration) func(*view) {
	return func(v *view) { v.asked = now.Add(-ago) }
}

// Whatever was done before, moves that are carried out lead to what is wanted, in few steps.
func TestMovesLeadToWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Now()
		v := view{
			wanted: &apiv1.VM{DesiredState: rapid.SampledFrom([]apiv1.VM_State{running, halted, deleted}).Draw(t, "wanted"), Force: rapid.Bool().Draw(t, "force")},
			is:     &apiv1.VM{State: rapid.SampledFrom([]apiv1.VM_State{young, running, halted, apiv1.VM_ERROR}).Draw(t, "is")},
			work: &zonev1.Work{
				LastStep: rapid.SampledFrom([]string{stepPlaced, stepImage, stepDisk, stepSeed, stepDefine, stepStart, stepStop, stepGone}).Draw(t, "last"),
			},
			seen:  hypervisor.Observation{Power: rapid.SampledFrom([]apiv1.VM_Power{apiv1.VM_ON, apiv1.VM_OFF, apiv1.VM_PAUSED, apiv1.VM_MISSING}).Draw(t, "power")},
			now:   now,
			grace: time.Minute,
		}
		for range 12 {
			switch m := v.next(); m {
			case runs, stopped, gone:
				want := map[move]apiv1.VM_State{runs: running, stopped: halted, gone: deleted}[m]
				if v.wanted.DesiredState != want {
					t.Fatalf("ended in %v, wanted %v", want, v.wanted.DesiredState)
				}
				return
			case lost:
				if !built(v.is) || v.seen.Power != apiv1.VM_MISSING {
					t.Fatal("said to be lost, and is not")
				}
				return
			case wait:
				v.now = v.now.Add(2 * time.Minute)
				v.seen.Ready = v.seen.Power == apiv1.VM_ON
			case define:
				v.seen.Power, v.work.LastStep = apiv1.VM_OFF, stepDefine
			case start:
				v.seen.Power, v.work.LastStep = apiv1.VM_ON, stepStart
			case askStop:
				v.asked, v.work.LastStep = v.now, stepStop
			case cutPower:
				v.seen = hypervisor.Observation{Power: apiv1.VM_OFF}
				v.work.LastStep = stepStop
			case remove:
				v.seen = hypervisor.Observation{Power: apiv1.VM_MISSING}
				v.work.LastStep = stepGone
			default:
				v.work.LastStep = nameOf(m)
			}
		}
		t.Fatalf("no end in twelve steps: %v", v)
	})
}
