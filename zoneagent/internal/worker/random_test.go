package worker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

// Whatever is wanted, through failing and silent hosts, lost replies, a failing store, one that is put back to an old
// backup, killed agents and late owners: in the end every VM is what is wanted of it or says why not, nobody ever made a second one (P2), none runs in two
// places (P3), nothing is over capacity, addresses are unique, and no silent host was acted upon.
func TestWhateverHappensVMsConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bubble(t, func(t testing.TB) {
			c := &chaos{site: newSite(t), rt: rt, wanted: map[string]*apiv1.VM{}, lost: map[string]bool{}, dead: map[string]bool{}}
			defer c.stopAll()
			c.run()
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

type chaos struct {
	*site
	rt      *rapid.T
	wanted  map[string]*apiv1.VM
	lost    map[string]bool // VMs that a host was made to forget
	dead    map[string]bool // hosts that were cut or killed
	orders  []string
	silent  bool // the store holds its news back
	unlucky atomic.Int64
}

const chaosHosts = 3

func (c *chaos) run() {
	c.zone.Fault = func() error {
		if c.unlucky.Add(-1) >= 0 {
			return errors.New("etcd is away")
		}
		return nil
	}
	c.cluster("kvm", chaosHosts, fmt.Sprintf("latency=%dms&boot=%dms&shutdown=%s",
		rapid.IntRange(0, 50).Draw(c.rt, "latency"), rapid.IntRange(0, 3000).Draw(c.rt, "boot"),
		rapid.SampledFrom([]string{"100ms", "5s", "-1s"}).Draw(c.rt, "shutdown")))
	c.own("kvm")
	c.pass(time.Second)
	for range rapid.IntRange(1, 30).Draw(c.rt, "steps") {
		c.step()
		c.pass(time.Duration(rapid.SampledFrom([]int{0, 1, 30, 300, 3000, 20000}).Draw(c.rt, "pause")) * time.Millisecond)
		c.always()
	}
	c.unlucky.Store(0)
	c.zone.Silence(false)
	for host := range c.dead {
		c.restore(host)
	}
	c.own("kvm")
	c.pass(15 * time.Minute)
	c.always()
	c.converged()
}

func (c *chaos) step() {
	id := fmt.Sprintf("vm-%d", rapid.IntRange(0, 6).Draw(c.rt, "vm"))
	host := fmt.Sprintf("kvm-%d", rapid.IntRange(1, chaosHosts).Draw(c.rt, "host"))
	knobs := c.fleet.Knobs(host)
	vm := c.wanted[id]
	switch rapid.SampledFrom([]string{
		"run", "run", "run", "stop", "delete", "reboot", "fail", "lose reply", "cut", "kill host", "restore", "restore",
		"power off", "forget", "store", "kill agent", "late owner", "watch", "silence", "put back",
	}).Draw(c.rt, "step") {
	case "run":
		if vm.GetDesiredState() != apiv1.VM_DELETED {
			c.wanted[id] = c.vm("kvm", id, func(v *apiv1.VM) { v.Size.Cores = 2 })
			c.want(c.wanted[id])
		}
	case "stop":
		if vm.GetDesiredState() == apiv1.VM_RUNNING {
			c.wanted[id] = c.vm("kvm", id, wanting(apiv1.VM_STOPPED), func(v *apiv1.VM) {
				v.Size.Cores, v.Force = 2, rapid.Bool().Draw(c.rt, "force")
			})
			c.want(c.wanted[id])
		}
	case "delete":
		if vm != nil && vm.GetDesiredState() != apiv1.VM_DELETED {
			c.wanted[id] = c.vm("kvm", id, wanting(apiv1.VM_DELETED), func(v *apiv1.VM) { v.Size.Cores = 2 })
			c.want(c.wanted[id])
		}
	case "reboot":
		c.orders = append(c.orders, c.order("kvm", id))
	case "fail":
		knobs.FailNext(rapid.IntRange(1, 6).Draw(c.rt, "calls"))
	case "lose reply":
		knobs.LoseNext(rapid.IntRange(1, 4).Draw(c.rt, "calls"))
	case "cut":
		c.silenceOnce(host, (*sim.Knobs).Cut)
	case "kill host":
		c.silenceOnce(host, (*sim.Knobs).Kill)
	case "restore":
		c.restore(host)
		delete(c.dead, host)
	case "power off":
		knobs.PowerOff(id)
	case "forget":
		if at := c.zone.VM(id).GetHostId(); at != "" {
			c.fleet.Knobs(at).Lose(id)
			c.lost[id] = true
		}
	case "store":
		c.unlucky.Store(rapid.Int64Range(1, 6).Draw(c.rt, "failures"))
	case "kill agent":
		c.own("kvm")
	case "late owner":
		left := time.Duration(rapid.IntRange(0, 500).Draw(c.rt, "left")) * time.Millisecond
		c.agents["kvm"].owner.Extend(left)
		c.pass(left + time.Millisecond)
		c.own("kvm")
	case "put back":
		c.zone.PutBack()
		c.orders = nil // what was under way is forgotten with the rest
	case "silence":
		c.silent = !c.silent
		c.zone.Silence(c.silent)
	case "watch":
		c.zone.Reset()
	}
}

func (c *chaos) silenceOnce(host string, how func(*sim.Knobs)) {
	if !c.dead[host] {
		c.silence(host, how)
		c.dead[host] = true
	}
}

// always is what holds at every moment.
func (c *chaos) always() {
	for _, w := range c.wrong {
		c.rt.Fatal(w)
	}
	addresses := map[string]string{}
	taken := map[string]uint32{}
	for id := range c.wanted {
		if on := c.fleet.Running(id); len(on) > 1 {
			c.rt.Fatalf("P3: %s runs on %v", id, on)
		}
		created := 0
		for n := 1; n <= chaosHosts; n++ {
			created += c.fleet.Knobs(fmt.Sprintf("kvm-%d", n)).Creations(id)
		}
		if created > 1 && !c.lost[id] {
			c.rt.Fatalf("P2: %s was created %d times", id, created)
		}
		if vm := c.zone.VM(id); vm.GetHostId() != "" {
			if other := addresses[vm.Address]; other != "" && vm.Address != "" {
				c.rt.Fatalf("%s and %s have %s", id, other, vm.Address)
			}
			addresses[vm.Address] = id
			taken[vm.HostId] += 2
		}
	}
	c.zone.Each(etcdstore.Allocation, func(_, host string, m proto.Message) {
		if a := m.(*zonev1.Allocation); a.GetUsed().GetCores() != taken[host] || taken[host] > 8 {
			c.rt.Fatalf("%s: %d cores allocated, its VMs take %d of 8", host, a.GetUsed().GetCores(), taken[host])
		}
	})
}

// converged is what holds once everything answers and nothing is asked any more.
func (c *chaos) converged() {
	for id, wanted := range c.wanted {
		is := c.zone.VM(id)
		if m, _ := c.zone.Get(etcdstore.Work, "", id); m != nil {
			c.rt.Fatalf("%s: work is left: %v", id, m)
		}
		if c.outcome(wanted.Operation) == "" {
			c.rt.Fatalf("%s: its operation has not ended: wanted %v, observed %v", id, wanted, is)
		}
		on := c.fleet.Running(id)
		switch {
		case wanted.DesiredState == apiv1.VM_DELETED && c.outcome(wanted.Operation) == "done":
			if is != nil || len(on) > 0 {
				c.rt.Fatalf("%s is deleted: observed %v, runs on %v", id, is, on)
			}
			continue
		case schema.CompareGenerations(is.GetReached(), wanted.Generation) != 0:
			c.rt.Fatalf("%s was not answered: wanted %v, observed %v", id, wanted, is)
		}
		if is.GetHostId() == "" {
			continue
		}
		if (is.GetPower() == apiv1.VM_ON) != (len(on) == 1) || is.GetHostFreshness() != apiv1.Freshness_LIVE {
			c.rt.Fatalf("%s runs on %v, observed %v", id, on, is)
		}
		if (is.GetState() == apiv1.VM_RUNNING) != (is.GetPower() == apiv1.VM_ON) && is.GetState() != apiv1.VM_ERROR {
			c.rt.Fatalf("%s: state and power differ: %v", id, is)
		}
	}
	for _, op := range c.orders {
		if c.outcome(op) == "" {
			c.rt.Fatalf("order %s was not answered", op)
		}
	}
	c.zone.Each(etcdstore.Order, func(_, id string, m proto.Message) { c.rt.Fatalf("order %s is left", id) })
	c.zone.Each(etcdstore.Address, func(_, address string, m proto.Message) {
		if vm := c.zone.VM(m.(*zonev1.AddressLease).GetVmId()); vm.GetAddress() != address {
			c.rt.Fatalf("%s is leased and not used", address)
		}
	})
}
