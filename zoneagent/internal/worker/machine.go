package worker

import (
	"math/rand/v2"
	"time"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// machine is what the loop knows of one VM. The nouns are never changed, only replaced.
type machine struct {
	id       string
	wanted   *apiv1.VM // nil: the control plane does not name it
	is       *apiv1.VM // nil: nothing is observed
	revision int64     // of what is observed; newer than what the store has told, where this term wrote it
	work     *zonev1.Work
	worked   int64 // revision of the work
	orders   []order
	kept     bool // a full sync did not name it: nothing is begun

	// busy: a step, a commit or a departure is under way.
	busy bool
	// ended: it has departed, which the store has not told yet.
	ended bool
	// wake is when it is looked at by itself; the zero time: not at all.
	wake time.Time
	// pause is before when nothing is tried again; something newly wanted does not wait for it.
	pause time.Time
	// stale: a commit found that it has moved; until the store tells what, or this time, nothing is done.
	stale time.Time
	// failures in a row of what is being tried.
	failures int
	// unwritten is a record that could not be committed yet.
	unwritten *record

	// Of the present work, known to this term only.
	asked     time.Time // when the guest was asked to power off
	starts    int
	started   time.Time // the last time
	failure   error     // the last one
	mustBeOff bool      // its errand cannot be done while it is on
	reboot    rebootState
	force     bool           // of the reboot
	outcome   *apiv1.Problem // of the reboot that was done; nil: it went well
	place     *host          // on which it has a place among the VMs that are built

	// delayed is the operation of which this term has told that it waits for the host.
	delayed string

	// seen is what was seen last; spoken when a step last saw or wrote something.
	seen     hypervisor.Observation
	sighted  bool
	spoken   time.Time
	absences int // rounds in a row in which the host did not know it
	counters hypervisor.VMCounters
}

// order is an order that was not taken up yet.
type order struct {
	id, stream string
	revision   int64
	*linkv1.Order
}

// rebootState is how far this term has come with the reboot that is in the VM's work.
type rebootState int

const (
	notMine  rebootState = iota // taken up by an owner before: whether it was done is not known
	takenUp                     // durably; it is to be done now
	rebooted                    // done, or found not to be possible; to be recorded
)

// begins tells whether what is wanted asks for work that was not begun.
func (m *machine) begins() bool {
	if m.wanted == nil || m.kept || m.is.GetHostId() == "" {
		return false
	}
	if m.wanted.GetErrand().GetKind() == apiv1.VM_Errand_RESIZE && !covers(m.is.GetAllocated(), m.wanted.GetSize()) {
		return false // the scheduler gives it the room first, or says that there is none
	}
	have := m.is.GetReached()
	if m.work != nil && schema.CompareGenerations(m.work.GetGeneration(), have) > 0 {
		have = m.work.GetGeneration()
	}
	return schema.CompareGenerations(m.wanted.GetGeneration(), have) > 0
}

// covers tells whether so much is in an amount.
func covers(amount, of *apiv1.Resources) bool {
	return amount.GetCores() >= of.GetCores() && amount.GetMemoryMib() >= of.GetMemoryMib() && amount.GetDiskGib() >= of.GetDiskGib()
}

// works tells whether there is work that can go on. What is not named any more is left as it is.
func (m *machine) works() bool {
	return m.work != nil && m.wanted != nil && !m.kept && m.is.GetHostId() != ""
}

// starting tells whether the work needs one of its host's places for VMs that are built or started.
func (m *machine) starting() bool {
	return m.works() && m.work.GetLastStep() != stepReboot && m.wanted.GetDesiredState() != apiv1.VM_DELETED &&
		!(m.wanted.GetErrand().GetKind() == apiv1.VM_Errand_DROP && built(m.is)) && (m.wanted.GetDesiredState() == apiv1.VM_RUNNING || !built(m.is))
}

// renew forgets what belongs to one work only.
func (m *machine) renew() {
	m.asked, m.starts, m.started, m.failures, m.failure = time.Time{}, 0, time.Time{}, 0, nil
	m.pause, m.reboot, m.outcome, m.mustBeOff = time.Time{}, notMine, nil, false
}

// backoff is the pause after n failures in a row: doubling from first to most, the upper half of it by chance, so that
// many that failed together do not come again together.
func backoff(n int, first, most time.Duration) time.Duration {
	d := most
	if n < 16 {
		d = min(first<<max(n-1, 0), most)
	}
	return d/2 + rand.N(d/2+1)
}
