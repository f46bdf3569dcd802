package worker

import (
	"slices"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// move is what is to be done next to a VM.
type move int

const (
	wait     move = iota // look again later
	image                // make the image's bits present
	disk                 // give it a disk
	seed                 // give it what it reads at its first start
	define               // make the host know it
	start                // make it run
	askStop              // ask the guest to power off
	cutPower             // power it off
	remove               // leave nothing of it on the host
	runs                 // it runs, as wanted
	silent               // it runs, and gave no sign of being ready until the deadline
	stopped              // it is off, as wanted
	gone                 // its host has nothing of it
	lost                 // its host does not know it any more
	late                 // the deadline has passed
	flapping             // it powers itself off each time it is started
	resize               // give it the size that is wanted
	keep                 // take a snapshot of its disk
	restore              // put its disk back to a snapshot
	drop                 // remove a snapshot
	needsOff             // it would have to be powered off, and may not be
	unfit                // it was never whole
)

// Names of steps, as operations and Work tell them.
const (
	stepPlaced = "placed"
	stepImage  = "image"
	stepDisk   = "disk"
	stepSeed   = "seed"
	stepDefine = "define"
	stepStart  = "start"
	stepUsable = "usable"
	stepStop   = "stop"
	stepGone   = "gone"
	stepReboot = "reboot"
	stepResize = "resize"
	stepKeep   = "snapshot"
	// stepRestore and stepDrop are what is done with a snapshot.
	stepRestore = "restore"
	stepDrop    = "drop"
	// stepDelayed is nothing that is done: it tells that the host is away.
	stepDelayed = "delayed"
)

type chainStep struct {
	move     move
	name     string
	progress uint32
}

// chain is how a VM is built, and how far along each step is, in percent.
var chain = []chainStep{
	{image, stepImage, 40}, {disk, stepDisk, 50}, {seed, stepSeed, 60}, {define, stepDefine, 70}, {start, stepStart, 80},
}

// chained tells whether a move is a step of the chain.
func (m move) chained() bool {
	return slices.ContainsFunc(chain, func(s chainStep) bool { return s.move == m })
}

// startsAllowed is how often a VM is started within one work before it is said to power itself off.
const startsAllowed = 3

// view is all that a decision depends on.
type view struct {
	wanted *apiv1.VM
	is     *apiv1.VM
	work   *zonev1.Work
	seen   hypervisor.Observation
	now    time.Time
	// asked is when the guest was asked to power off, by this term; zero: it was not.
	asked time.Time
	grace time.Duration
	// starts is how often this term has started it within the work.
	starts int
	// mustBeOff: this term was told that its errand cannot be done while it is on.
	mustBeOff bool
}

// errands are the moves by which a VM's errand is done, and their steps' names.
var errands = map[apiv1.VM_Errand_Kind]struct {
	move move
	name string
}{
	apiv1.VM_Errand_RESIZE:   {resize, stepResize},
	apiv1.VM_Errand_SNAPSHOT: {keep, stepKeep},
	apiv1.VM_Errand_RESTORE:  {restore, stepRestore},
	apiv1.VM_Errand_DROP:     {drop, stepDrop},
}

// next decides. It is pure: the same view gives the same move.
func (v view) next() move {
	if v.seen.Power == apiv1.VM_UNKNOWN || v.seen.Power == apiv1.VM_POWER_UNSPECIFIED {
		return v.orLate(wait)
	}
	if v.wanted.GetErrand() != nil && !v.work.GetErrandDone() && v.wanted.GetDesiredState() != apiv1.VM_DELETED {
		return v.towardsErrand()
	}
	switch v.wanted.GetDesiredState() {
	case apiv1.VM_DELETED:
		return v.towardsGone()
	case apiv1.VM_STOPPED, apiv1.VM_TRASHED:
		return v.towardsStopped()
	case apiv1.VM_RUNNING:
		return v.towardsRunning()
	}
	return wait
}

// towardsErrand does what is to be done once, before the VM is brought to its state. What has to have it off powers it off only
// where that was allowed. A step is recorded before the next one begins, and can be repeated until then.
func (v view) towardsErrand() move {
	kind := v.wanted.GetErrand().GetKind()
	do, known := errands[kind]
	live := kind == apiv1.VM_Errand_DROP || kind == apiv1.VM_Errand_RESIZE && !v.mustBeOff
	switch {
	case !known || !built(v.is):
		return unfit
	case v.seen.Power == apiv1.VM_MISSING:
		return lost
	case v.seen.Power == apiv1.VM_OFF || live:
		return v.orLate(do.move)
	case !v.wanted.GetErrand().GetMayStop():
		return needsOff
	}
	return v.orLate(v.powerOff())
}

func (v view) towardsRunning() move {
	switch v.seen.Power {
	case apiv1.VM_ON:
		switch {
		case v.seen.Ready:
			return runs
		case v.late():
			return silent
		}
		return wait
	case apiv1.VM_PAUSED:
		return v.orLate(start)
	case apiv1.VM_OFF:
		switch {
		case v.starts >= startsAllowed:
			return flapping
		case built(v.is):
			return v.orLate(start)
		}
		return v.orLate(v.build())
	}
	if built(v.is) {
		return lost
	}
	return v.orLate(v.build())
}

func (v view) towardsStopped() move {
	switch v.seen.Power {
	case apiv1.VM_ON, apiv1.VM_PAUSED:
		return v.orLate(v.powerOff())
	case apiv1.VM_OFF:
		if next := v.build(); !built(v.is) && next != start {
			return v.orLate(next)
		}
		return stopped
	}
	if built(v.is) {
		return lost
	}
	return v.orLate(v.build())
}

// towardsGone asks a guest that is in use to power off before everything of it is removed. A VM that its host does not
// know may still have a disk there, so it is removed all the same, once.
func (v view) towardsGone() move {
	on := v.seen.Power == apiv1.VM_ON
	switch {
	case !on && v.seen.Power == apiv1.VM_MISSING && v.work.GetLastStep() == stepGone:
		return gone
	case on && v.is.GetUsableAt() != nil:
		if next := v.powerOff(); next != cutPower {
			return v.orLate(next)
		}
	}
	return v.orLate(remove)
}

func (v view) powerOff() move {
	switch {
	case v.wanted.GetForce():
		return cutPower
	case v.asked.IsZero():
		return askStop
	case v.now.Sub(v.asked) >= v.grace:
		return cutPower
	}
	return wait
}

// build is the step after the last one that was recorded; where the host lost what was defined, the first.
func (v view) build() move {
	last := v.work.GetLastStep()
	switch {
	case last != stepDefine && last != stepStart:
	case v.seen.Power == apiv1.VM_MISSING:
		return image
	default:
		return start
	}
	for i, s := range chain {
		if s.name == last {
			return chain[i+1].move
		}
	}
	return image
}

func (v view) late() bool {
	d := v.work.GetDeadline()
	return d != nil && v.now.After(d.AsTime())
}

func (v view) orLate(m move) move {
	if v.late() {
		return late
	}
	return m
}

// built tells whether the VM was once made whole: from then on a host that does not know it has lost it.
func built(is *apiv1.VM) bool {
	switch is.GetState() {
	case apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_SUSPENDED, apiv1.VM_TRASHED:
		return true
	}
	return is.GetUsableAt() != nil
}
