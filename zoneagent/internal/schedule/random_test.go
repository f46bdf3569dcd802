package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Whatever is wanted in whatever order, through faults of the store, lost watches and changes of owner: every VM is
// answered, none is over capacity, addresses are unique, and what was placed stays where it is (P2, P17, P27).
func TestEveryVMIsAnsweredWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bubble(t, func(t testing.TB) {
			r := &random{site: newSite(t), rt: rt, wanted: map[string]*apiv1.VM{}, hostOf: map[string]string{}, departed: map[string]bool{}, reserved: map[string]*apiv1.Reservation{}}
			defer r.stopAll()
			r.fail = rt.Fatalf
			r.run()
		})
	})
}

// bubble runs fn in a bubble of its own time, for one try of rapid: what rapid throws to end a try passes through.
func bubble(t *testing.T, fn func(t testing.TB)) {
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		defer func() { thrown = recover() }()
		fn(t)
	})
	if thrown != nil {
		panic(thrown)
	}
}

type random struct {
	*site
	rt       *rapid.T
	wanted   map[string]*apiv1.VM
	hostOf   map[string]string
	departed map[string]bool
	hosts    int
	reserved map[string]*apiv1.Reservation
	silent   bool
	unlucky  atomic.Int64 // commits still to fail
}

var clusters = []string{"web", "db"}

func (r *random) run() {
	r.network.First, r.network.Last = r.network.CIDR.Addr().Next(), r.network.CIDR.Addr().Next()
	for range rapid.IntRange(3, 40).Draw(r.rt, "addresses") {
		r.network.Last = r.network.Last.Next()
	}
	r.zone.Fault = func() error {
		if r.unlucky.Add(-1) >= 0 {
			return errors.New("etcd is away")
		}
		return nil
	}
	for _, c := range clusters {
		r.cluster(c, 0)
		r.own(c, r.config)
	}
	for range rapid.IntRange(1, 40).Draw(r.rt, "steps") {
		r.step()
		if rapid.Bool().Draw(r.rt, "pause") {
			synctest.Wait()
			r.check()
		}
	}
	r.unlucky.Store(0)
	r.zone.Silence(false)
	r.settle()
	r.check()
	r.converged()
}

func (r *random) config(c *Config) { c.Batch = rapid.SampledFrom([]int{1, 3, 100}).Draw(r.rt, "batch") }

func (r *random) step() {
	id := fmt.Sprintf("vm-%02d", rapid.IntRange(0, 19).Draw(r.rt, "vm"))
	cluster := rapid.SampledFrom(clusters).Draw(r.rt, "cluster")
	switch rapid.SampledFrom([]string{"want", "want", "want", "away", "again", "depart", "host", "health", "owner", "watch", "fault", "silence", "drop", "reserve", "reserve", "growth", "resize", "resize", "resized", "release", "forget", "later"}).Draw(r.rt, "step") {
	case "want":
		if r.wanted[id] == nil && !r.departed[id] {
			r.want(r.vm(cluster, id, sized(rapid.Uint32Range(1, 6).Draw(r.rt, "cores"), 1024), r.affinity, r.inReservation))
		}
	case "reserve":
		id := fmt.Sprintf("hold-%d", rapid.IntRange(0, 4).Draw(r.rt, "reservation"))
		if r.reserved[id] == nil {
			r.reserved[id] = r.reserve(cluster, id, rapid.Uint32Range(1, 4).Draw(r.rt, "quantity"), func(m *apiv1.Reservation) {
				m.Spread = rapid.Bool().Draw(r.rt, "spread")
				m.Size.Cores = rapid.Uint32Range(1, 4).Draw(r.rt, "cores")
				m.HoldUntil = timestamppb.New(time.Now().Add(time.Duration(rapid.IntRange(-1, 100).Draw(r.rt, "minutes")) * time.Minute))
			})
		}
	case "growth":
		hold := fmt.Sprintf("hold-%d", rapid.IntRange(0, 4).Draw(r.rt, "reservation"))
		if vm := r.one(id); vm != nil && r.reserved[hold] == nil {
			r.reserved[hold] = r.reserve(vm.ClusterId, hold, 1, forVM(vm.Id, rapid.Uint32Range(0, 4).Draw(r.rt, "cores")))
		}
	case "resize":
		hold := fmt.Sprintf("hold-%d", rapid.IntRange(0, 5).Draw(r.rt, "reservation"))
		vm := r.one(id)
		if its := r.wanted[r.reserved[hold].GetVmId()]; its != nil { // else it names one that is not for it
			vm = its
		}
		if vm != nil && vm.DesiredState != apiv1.VM_DELETED && r.zone.VM(vm.Id).GetHostId() != "" {
			r.wanted[vm.Id] = r.resize(vm, rapid.Uint32Range(1, 8).Draw(r.rt, "cores"), hold)
		}
	case "resized":
		r.settle()
		if vm, is := r.one(id), r.zone.VM(r.one(id).GetId()); vm.GetErrand() != nil && is.GetHostId() != "" && proto.Equal(is.GetAllocated(), more(is.GetAllocated(), vm.GetSize())) {
			r.resized(vm)
		}
	case "release":
		id := fmt.Sprintf("hold-%d", rapid.IntRange(0, 4).Draw(r.rt, "reservation"))
		if was := r.reserved[id]; was != nil {
			r.reserved[id] = r.reserve(was.ClusterId, id, was.Quantity, func(m *apiv1.Reservation) {
				m.Spread, m.Size, m.HoldUntil, m.Vm, m.VmId = was.Spread, was.Size, was.HoldUntil, was.Vm, was.VmId
				m.DesiredState = apiv1.Reservation_RELEASED
			})
		}
	case "forget":
		id := fmt.Sprintf("hold-%d", rapid.IntRange(0, 4).Draw(r.rt, "reservation"))
		if r.reserved[id] != nil {
			r.zone.Put(etcdstore.Desired, "reservation", id, nil)
			delete(r.reserved, id)
		}
	case "later":
		time.Sleep(10 * time.Minute) // the bubble's
	case "away":
		if vm := r.wanted[id]; vm != nil && vm.DesiredState != apiv1.VM_DELETED {
			r.again(vm, apiv1.VM_DELETED)
		}
	case "again":
		if vm := r.wanted[id]; vm != nil && vm.DesiredState != apiv1.VM_DELETED {
			r.again(vm, apiv1.VM_RUNNING)
		}
	case "depart":
		r.settle()
		vm, term := r.wanted[id], r.terms[r.wanted[id].GetClusterId()]
		if vm.GetDesiredState() != apiv1.VM_DELETED || r.zone.VM(id).GetHostId() == "" || term == nil || r.unlucky.Load() > 0 {
			return
		}
		// While the store is silent a fresh term knows nothing yet, and the departure waits.
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		if err := term.Depart(ctx, vm); err != nil && !r.silent {
			r.rt.Fatalf("depart: %v", err)
		}
		r.departed[id] = true
	case "host":
		r.hosts++
		r.host(cluster, fmt.Sprintf("%s-%d", cluster, r.hosts), 8, 32768)
	case "health":
		if r.hosts > 0 {
			name := fmt.Sprintf("%s-%d", cluster, rapid.IntRange(1, r.hosts).Draw(r.rt, "host"))
			if r.zone.Host(name) != nil {
				r.report(name, rapid.SampledFrom([]apiv1.Host_Health{apiv1.Host_AVAILABLE, apiv1.Host_DOWN}).Draw(r.rt, "health"), 8, 32768)
			}
		}
	case "owner":
		r.leave(cluster)
		r.own(cluster, r.config)
	case "silence":
		r.silent = !r.silent
		r.zone.Silence(r.silent)
	case "drop":
		if r.departed[id] && r.wanted[id] != nil {
			r.zone.Put(etcdstore.Desired, "vm", id, nil)
			delete(r.wanted, id)
		}
	case "watch":
		r.zone.Reset()
	case "fault":
		r.unlucky.Store(rapid.Int64Range(1, 4).Draw(r.rt, "failures"))
	}
}

// one is the first VM that is wanted, of that id or a higher one.
func (r *random) one(id string) *apiv1.VM {
	for _, of := range slices.Sorted(maps.Keys(r.wanted)) {
		if of >= id {
			return r.wanted[of]
		}
	}
	return nil
}

func (r *random) inReservation(vm *apiv1.VM) {
	if n := rapid.IntRange(0, 6).Draw(r.rt, "reservation"); n < 5 {
		vm.Reservation = fmt.Sprintf("hold-%d", n)
	}
}

func (r *random) affinity(vm *apiv1.VM) {
	if rule := rapid.IntRange(0, 4).Draw(r.rt, "rule"); rule == 1 || rule == 2 {
		vm.Affinities = []*apiv1.VM_Affinity{{Group: "g", Rule: apiv1.VM_Affinity_Rule(rule)}}
	}
}

func (r *random) want(vm *apiv1.VM) {
	r.wanted[vm.Id] = vm
	r.zone.Want(vm)
}

func (r *random) again(vm *apiv1.VM, state apiv1.VM_State) {
	next := r.vm(vm.ClusterId, vm.Id, wanting(state))
	next.Size, next.Affinities, next.Reservation = vm.Size, vm.Affinities, vm.Reservation
	r.want(next)
}

// check is what holds at every moment.
func (r *random) check() {
	r.audit()
	for id := range r.wanted {
		at := r.zone.VM(id).GetHostId()
		if was := r.hostOf[id]; was != "" && at != was && !r.departed[id] {
			r.rt.Fatalf("%s was on %s and is on %q", id, was, at)
		}
		r.hostOf[id] = at
	}
}

// converged is what holds once nothing happens any more.
func (r *random) converged() {
	groups := map[string][]string{}
	for id, vm := range r.wanted {
		is := r.zone.VM(id)
		switch {
		case vm.DesiredState == apiv1.VM_DELETED && is.GetHostId() == "":
			if is != nil || r.zone.Tombstones("vm", id) == 0 {
				r.rt.Fatalf("%s is wanted away: observed %v, %d tombstones", id, is, r.zone.Tombstones("vm", id))
			}
		case is.GetHostId() != "":
			if m, _ := r.zone.Get(etcdstore.Work, "", id); m == nil {
				r.rt.Fatalf("%s is on %s and nobody works on it", id, is.GetHostId())
			}
			if vm.Errand != nil && schema.CompareGenerations(is.GetReached(), vm.Generation) < 0 && is.GetAllocated().GetCores() < vm.Size.GetCores() {
				r.rt.Fatalf("%s is to be resized, and was neither given the room nor refused: wanted %v, observed %v", id, vm, is)
			}
			for _, a := range vm.Affinities {
				if a.Rule == apiv1.VM_Affinity_APART {
					groups[vm.ClusterId] = append(groups[vm.ClusterId], is.GetHostId())
				}
			}
		case is.GetState() != apiv1.VM_ERROR || schema.CompareGenerations(is.GetReached(), vm.Generation) != 0:
			r.rt.Fatalf("%s was not answered: wanted %v, observed %v", id, vm, is)
		}
	}
	for id, wanted := range r.reserved {
		m, _ := r.zone.Get(etcdstore.Observed, "reservation", id)
		is, _ := m.(*apiv1.Reservation)
		over := !time.Now().Before(wanted.HoldUntil.AsTime()) || wanted.DesiredState == apiv1.Reservation_RELEASED
		if schema.CompareGenerations(is.GetReached(), wanted.Generation) != 0 || over && is.GetState() == apiv1.Reservation_HELD {
			r.rt.Fatalf("%s was not answered: wanted %v, observed %v", id, wanted, is)
		}
	}
	r.zone.Each(etcdstore.Observed, func(kind, id string, m proto.Message) {
		if kind == "reservation" && r.reserved[id] == nil {
			r.rt.Fatalf("%s is nobody's, and is kept: %v", id, m)
		}
	})
	for cluster, hosts := range groups {
		if slices.Sort(hosts); len(slices.Compact(slices.Clone(hosts))) != len(hosts) {
			r.rt.Fatalf("VMs of %s that stand apart are on %v", cluster, hosts)
		}
	}
}
