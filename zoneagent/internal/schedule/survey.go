package schedule

import (
	"net/netip"
	"slices"
	"time"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// The store can be put back to an older backup, or begin anew, while VMs run that it then knows nothing of. Placing
// such a VM as if it were new would make a second one. So a VM that is older than the store's present life and has no
// host gets none before every host of the cluster was asked what it has; one that is found on a host is taken over where
// it is, and one that is found on two is left to people. Nothing at all is placed on a host that was not asked: what the
// store has forgotten takes room there.

// clockSkew is how far the clocks of the control plane and of the zone may lie apart in telling what is older.
const clockSkew = 30 * time.Second

// survey is what one host has: VMs, with the addresses that they were defined with, where they have one.
type survey struct {
	incarnation string
	vms         map[string]netip.Addr
}

// Survey tells what VMs a host has and with which addresses, as it was found since the store's incarnation began. It
// returns at once.
func (t *Term) Survey(incarnation, hostID string, vms map[string]netip.Addr) {
	t.inbox.Lock()
	t.surveys[hostID] = survey{incarnation, vms}
	t.inbox.Unlock()
	select {
	case t.surveyed <- struct{}{}:
	default:
	}
}

// takeSurveys takes what was told of the present incarnation. The worker may have learned of a new one first: what it
// told of that waits.
func (t *Term) takeSurveys() {
	t.inbox.Lock()
	defer t.inbox.Unlock()
	for host, s := range t.surveys {
		if s.incarnation == t.book.incarnation {
			delete(t.surveys, host)
			t.book.survey(host, s.vms)
		}
	}
}

func (b *book) survey(host string, vms map[string]netip.Addr) {
	b.surveyed[host] = true
	for id, on := range b.found {
		left := slices.DeleteFunc(on, func(h string) bool { return h == host })
		if len(left) == len(on) {
			continue
		}
		if b.found[id] = left; len(left) == 0 {
			delete(b.found, id)
		}
		b.relate(id) // it takes room where it is found first
	}
	for id, address := range vms {
		// What this term has ended was there when its host was looked at, and is no more.
		if _, ended := b.gone[id]; !ended && b.observed[id].value.GetHostId() == "" {
			b.found[id] = append(b.found[id], host)
			b.had[id] = address
			b.relate(id)
		}
	}
	if b.hosts[host] != nil {
		b.relateHost(host)
	}
}

// asked tells whether nothing can be on a host that the store does not know of.
func (b *book) asked(host string) bool { return !b.forgetful || b.surveyed[host] }

// foundOn returns the hosts of the cluster that a VM without a host was found on.
func (b *book) foundOn(id string) (on []*apiv1.Host) {
	for _, host := range b.found[id] {
		if h := b.hosts[host]; h.in(b.cluster) {
			on = append(on, h.desired)
		}
	}
	return on
}

// unasked returns a host of the cluster that was not asked yet what it has; nil when all were.
func (b *book) unasked() (first *apiv1.Host) {
	if !b.forgetful {
		return nil
	}
	for id, h := range b.hosts {
		if h.in(b.cluster) && !b.asked(id) && (first == nil || h.desired.GetName() < first.GetName()) {
			first = h.desired
		}
	}
	return first
}

// mayExist tells whether a VM without a host may be on one that was not asked yet, and on which. p remembers the host.
func (t *Term) mayExist(p *plan, vm *apiv1.VM) (on *apiv1.Host) {
	life, _ := t.cfg.Store.Incarnation()
	if life.GetId() == t.book.incarnation && vm.GetCreatedAt().AsTime().After(life.GetMintedAt().AsTime().Add(clockSkew)) {
		return nil
	}
	if !p.looked {
		p.looked, p.unasked = true, t.book.unasked()
	}
	return p.unasked
}

func twice(vm *apiv1.VM, on []*apiv1.Host) *apiv1.Problem {
	return problem.Newf(problem.WrongState, "Find out which of the two is the VM, remove the other's domain and disk by hand, then ask again.",
		"VM %s is older than the zone's store, which was put back or began anew, and was found on host %s and on host %s.",
		vm.GetName(), on[0].GetName(), on[1].GetName()).Problem
}

func hostUnasked(vm *apiv1.VM, h *apiv1.Host) *apiv1.Problem {
	return problem.Newf(problem.Unavailable, "Bring the host back, or take it out of the cluster if it is gone for good, then ask again.",
		"VM %s is older than the zone's store, which was put back or began anew, and may be on host %s, which has not answered since.",
		vm.GetName(), h.GetName()).Problem
}
