package schedule

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// pass does what there is to do, a transaction at a time.
func (t *Term) pass(ctx context.Context) error {
	for t.book.told {
		began := time.Now()
		p := t.plan()
		t.cfg.Metrics.waiting.WithLabelValues(t.cfg.Cluster).Set(float64(len(t.book.waiting)))
		if p.empty() {
			return nil
		}
		revision, err := t.commit(ctx, p)
		switch {
		case err == nil:
			t.settle(p, revision)
			t.cfg.Metrics.committed(p, time.Since(began))
		case errors.Is(err, etcdstore.ErrFenced), ctx.Err() != nil:
			return err
		case errors.Is(err, etcdstore.ErrTooLarge) && t.size > 1:
			t.size = max(t.size/2, 1)
			t.undo(p)
		default:
			// A conflict is mended by the news of what has moved, any other failure by time.
			t.undo(p)
			t.cfg.Metrics.failed(err)
			t.log.Info("placements were not committed and are tried again", "vms", len(p.placed), "error", err)
			t.stall()
			return nil
		}
		t.drain()
	}
	return nil
}

// plan is one transaction in the making. The picture and the pool hold what it places already.
type plan struct {
	now     time.Time
	placed  []placed
	refused []refused
	ended   []*apiv1.VM // wanted away, and never on a host
	left    []*departure
	hosts   map[string]bool // whose allocation changes
	resized []resized
	// holds are reservations as they are to be, forgotten those that are nobody's any more.
	holds     map[string]*apiv1.Reservation
	forgotten []string
	// unasked is a host that was not asked yet, once it was looked for one.
	unasked *apiv1.Host
	looked  bool
}

type placed struct {
	vm      *apiv1.VM // as wanted
	host    *apiv1.Host
	address netip.Addr // zero: none
	found   bool       // it was there already
}

type refused struct {
	vm  *apiv1.VM
	why *apiv1.Problem
}

func (p *plan) empty() bool {
	return len(p.placed)+len(p.refused)+len(p.ended)+len(p.left)+len(p.resized)+len(p.holds)+len(p.forgotten) == 0
}

// plan decides for as many as one transaction carries.
func (t *Term) plan() *plan {
	p := &plan{now: time.Now(), hosts: map[string]bool{}, holds: map[string]*apiv1.Reservation{}}
	room := t.size
	for _, d := range t.departures[:min(room, len(t.departures))] {
		t.planDeparture(p, d)
		room--
	}
	if t.book.syncing || room == 0 {
		return p
	}
	maps.DeleteFunc(t.since, func(id string, _ time.Time) bool { return !t.book.waiting[id] && !t.book.asks[id] })
	pressed := t.cfg.Store.Pressed()
	t.planReservations(p, pressed)
	room = t.planSizes(p, room)
	refusals := refusals{book: t.book}
	for _, id := range t.book.foundFirst() {
		if room == 0 {
			break
		}
		vm := t.book.desired[id]
		found, unasked := t.book.foundOn(id), (*apiv1.Host)(nil)
		if len(found) == 0 {
			unasked = t.mayExist(p, vm)
		}
		switch {
		case len(found) == 1:
			t.takeOver(p, vm, found[0])
		case len(found) > 1:
			p.refused = append(p.refused, refused{vm, twice(vm, found)})
		case unasked != nil && t.patient(p, id, t.cfg.OperationTimeout):
			t.stall()
			continue
		case unasked != nil:
			p.refused = append(p.refused, refused{vm, hostUnasked(vm, unasked)})
		case vm.GetDesiredState() == apiv1.VM_DELETED:
			p.ended = append(p.ended, vm)
		case t.book.zone == nil && !grade.MayStand(vm.GetGrade(), apiv1.Zone_OPEN):
			t.stall() // until it is known what may stand here
			continue
		case t.book.zone != nil && !grade.MayStand(vm.GetGrade(), t.book.zone.GetGrade()):
			p.refused = append(p.refused, refused{vm, aboveZone(vm, t.book.zone)})
		case pressed, t.book.asks[vm.GetReservation()] && p.holds[vm.GetReservation()] == nil:
			t.stall()
			continue
		default:
			if !t.place(p, vm, &refusals) {
				t.stall()
				continue
			}
		}
		delete(t.since, id)
		room--
	}
	if pressed && len(t.book.waiting) > len(p.ended) {
		t.cfg.Metrics.held.Inc()
		t.log.Warn("the zone's store is nearly full: nothing new is placed until there is room", "waiting", len(t.book.waiting))
	}
	return p
}

// aboveZone refuses what the control plane should not have sent: a VM of a higher grade than may stand in the zone. It does not rest
// on the control plane alone what is begun here.
func aboveZone(vm *apiv1.VM, zone *apiv1.Zone) *apiv1.Problem {
	return problem.Newf(problem.GradeForbids, "Ask for it in a zone that is "+grade.Word(vm.GetGrade())+" or higher, and look why the control plane sent it here.",
		"VM %s is %s, and zone %s, which is %s, does not begin it", vm.GetName(), grade.Word(vm.GetGrade()), zone.GetName(), grade.Word(zone.GetGrade())).Problem
}

// place gives a VM a host, or refuses it; false: neither, it waits.
func (t *Term) place(p *plan, vm *apiv1.VM, r *refusals) bool {
	if p.holds[vm.GetReservation()] == nil && len(p.holds) >= min(maxHolds, t.size) && t.holdFor(p, vm) != nil {
		return false // in the next transaction
	}
	var address netip.Addr
	if pool := t.book.pool; pool != nil {
		free := false
		if address, free = pool.lowest(); !free {
			if _, fits := t.book.picture.Choose(vm); fits || t.holdFor(p, vm) != nil {
				p.refused = append(p.refused, refused{vm, t.noAddress()})
				return true
			}
		}
	}
	before := t.book.picture.Visits()
	id, ok := t.findHost(p, vm)
	t.cfg.Metrics.visits.Add(float64(t.book.picture.Visits() - before))
	if !ok {
		why, mayPass := r.noHost(vm)
		if mayPass && t.patient(p, vm.GetId(), t.cfg.Patience) {
			return false
		}
		p.refused = append(p.refused, refused{vm, why})
		return true
	}
	if address.IsValid() {
		t.book.pool.set(address, true)
	}
	r.forget()
	p.placed = append(p.placed, placed{vm: vm, host: t.book.hosts[id].desired, address: address})
	p.hosts[id] = true
	return true
}

// patient tells whether a VM can wait some more for a host that may be there in a moment.
func (t *Term) patient(p *plan, id string, most time.Duration) bool {
	since, waits := t.since[id]
	if !waits {
		t.since[id] = p.now
		return true
	}
	return p.now.Sub(since) < most
}

// takeOver places a VM where it was found.
func (t *Term) takeOver(p *plan, vm *apiv1.VM, h *apiv1.Host) {
	t.log.Warn("a VM that the store did not know was found on a host and is taken over there", "vm", vm.GetId(), "host", h.GetName())
	at := placed{vm: vm, host: h, found: true}
	if had := t.book.had[vm.GetId()]; had.IsValid() && t.book.pool != nil {
		taken := slices.ContainsFunc(p.placed, func(x placed) bool { return x.address == had })
		if !taken && t.book.leases[had.String()].value == nil {
			at.address = had
			t.book.pool.set(had, true)
		} else {
			t.log.Error("a VM was found with an address that another VM has", "vm", vm.GetId(), "address", had)
		}
	}
	p.placed = append(p.placed, at)
	p.hosts[h.GetId()] = true
	t.consumeFound(p, vm, h.GetId())
}

// refusals explains, and remembers what it said as long as nothing was placed since: when a cluster is full, thousands
// are refused for the same reason.
type refusals struct {
	book *book
	said map[[3]uint32]refusal
}

type refusal struct {
	why     *apiv1.Problem
	mayPass bool
}

func (r *refusals) noHost(vm *apiv1.VM) (why *apiv1.Problem, mayPass bool) {
	size := [3]uint32{vm.GetSize().GetCores(), vm.GetSize().GetMemoryMib(), vm.GetSize().GetDiskGib()}
	plain := len(vm.GetAffinities()) == 0
	if said, ok := r.said[size]; ok && plain {
		return said.why, said.mayPass
	}
	e := r.book.picture.Explain(vm)
	why, mayPass = problem.New(problem.NoHostFits, e.Detail(), e.Next()).Problem, e.MayPass()
	if plain {
		if r.said == nil {
			r.said = map[[3]uint32]refusal{}
		}
		r.said[size] = refusal{why, mayPass}
	}
	return why, mayPass
}

func (r *refusals) forget() { clear(r.said) }

func (t *Term) noAddress() *apiv1.Problem {
	first, last := t.book.pool.bounds()
	return problem.Newf(problem.NoAddress, "Delete a VM of this network, ask for another cluster, or widen the range in the agents' configuration.",
		"All addresses from %s to %s of guest network %s are taken.", first, last, t.book.pool.network.CIDR).Problem
}

// commit writes a plan.
func (t *Term) commit(ctx context.Context, p *plan) (revision int64, err error) {
	tx := t.cfg.Store.Begin()
	tx.ReadIn(t.book.incarnation)
	for _, at := range p.placed {
		t.unmoved(tx, at.vm)
		tx.PutObserved(at.noun())
		work := &zonev1.Work{
			VmId: at.vm.GetId(), Generation: at.vm.GetGeneration(), OperationId: at.vm.GetOperation(), LastStep: "placed",
			Deadline: timestamppb.New(p.now.Add(t.cfg.OperationTimeout)),
		}
		if at.found && at.vm.GetErrand() != nil {
			// Whether it was done the store has forgotten, and to do it again could undo what came after.
			work.OperationId, work.ErrandDone = "", true
			tx.Journal(report(p.now, at.vm, forgottenErrand(p.now, at.vm))...)
		}
		tx.PutWork(work)
		if at.address.IsValid() {
			tx.TakeAddress(at.address, &zonev1.AddressLease{VmId: at.vm.GetId(), ClusterId: t.cfg.Cluster})
		}
		if work.GetOperationId() != "" {
			tx.Journal(report(p.now, at.vm, &linkv1.OperationReport{
				Step: step(p.now, "placed", apiv1.Operation_Step_DONE, at.String()), Progress: 30,
			})...)
		}
	}
	for _, r := range p.refused {
		t.unmoved(tx, r.vm)
		tx.PutObserved(r.noun())
		tx.Journal(report(p.now, r.vm, &linkv1.OperationReport{
			Step: step(p.now, "placed", apiv1.Operation_Step_FAILED, r.why.GetDetail()), Done: true, Error: r.why,
		})...)
	}
	for _, vm := range p.ended {
		t.unmoved(tx, vm)
		tx.Tombstone(reference(vm), vm.GetGeneration())
		tx.Journal(report(p.now, vm, &linkv1.OperationReport{
			Step: step(p.now, "gone", apiv1.Operation_Step_DONE, "it was on no host"), Progress: 100, Done: true,
		})...)
	}
	for _, d := range p.left {
		t.writeDeparture(tx, d)
	}
	t.writeSizes(tx, p)
	t.writeHolds(tx, p)
	for id := range p.hosts {
		if t.book.nowhere(id) {
			continue
		}
		used, vms := t.book.picture.Used(id)
		tx.PutAllocation(&zonev1.Allocation{HostId: id, Used: used, VmCount: vms}, t.book.host(id).allocation.revision)
	}
	return tx.Commit(ctx)
}

// unmoved makes the transaction conflict when what is observed of a VM is not what is known of it here.
func (t *Term) unmoved(tx Tx, vm *apiv1.VM) {
	is := t.book.observed[vm.GetId()]
	if is.value == nil {
		is.revision = 0
	}
	tx.Require(etcdstore.Observed, "vm", vm.GetId(), is.revision)
}

// settle takes over what was committed, before the store tells it.
func (t *Term) settle(p *plan, revision int64) {
	for _, at := range p.placed {
		id := at.vm.GetId()
		t.book.observed[id] = seen[*apiv1.VM]{at.noun(), revision}
		delete(t.book.waiting, id)
		delete(t.book.found, id)
		delete(t.book.had, id)
		if at.address.IsValid() {
			t.book.lease(at.address.String(), seen[*zonev1.AddressLease]{&zonev1.AddressLease{VmId: id}, revision})
		}
	}
	for _, r := range p.refused {
		t.book.observed[r.vm.GetId()] = seen[*apiv1.VM]{r.noun(), revision}
		delete(t.book.waiting, r.vm.GetId())
	}
	for _, vm := range p.ended {
		t.book.gone[vm.GetId()] = vm.GetGeneration()
		delete(t.book.waiting, vm.GetId())
	}
	for _, d := range p.left {
		t.settleDeparture(d, revision)
	}
	t.departures = t.departures[len(p.left):]
	t.settleSizes(p, revision)
	t.settleHolds(p, revision)
	for id := range p.hosts {
		if t.book.nowhere(id) {
			continue
		}
		used, vms := t.book.picture.Used(id)
		t.book.host(id).allocation = seen[*zonev1.Allocation]{&zonev1.Allocation{HostId: id, Used: used, VmCount: vms}, revision}
	}
}

// undo takes a plan back that was not committed.
func (t *Term) undo(p *plan) {
	for _, at := range p.placed {
		t.book.relate(at.vm.GetId())
		if at.address.IsValid() && t.book.leases[at.address.String()].value == nil {
			t.book.pool.set(at.address, false)
		}
	}
	for _, d := range p.left {
		t.book.relate(d.VM.GetId())
	}
	for _, r := range p.resized {
		t.book.relate(r.vm.GetId())
	}
	t.undoHolds(p)
}

// nowhere tells of a host that was taken away with what was kept on it: nothing is allocated there any more.
func (b *book) nowhere(id string) bool {
	h := b.hosts[id]
	return !h.in(b.cluster) && (h == nil || h.allocation.value == nil)
}
