package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Each host's stated reason really holds, every host is counted once, and the nearest miss is the nearest.
func TestExplanationsAreTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pair{New(), newWorld()}
		for _, c := range []string{"cluster-0", "cluster-1", "cluster-2"} {
			noun := &apiv1.Cluster{Id: c, Name: c, ZoneId: "zone"}
			p.SetCluster(noun)
			p.world.clusters[c] = noun
		}
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			p.change(t)
		}
		vm := drawVM(t)
		p.forget(vm.Id)
		exclude := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return few(t, "host", 12) }), 0, 3).Draw(t, "exclude")

		verdicts := slices.Collect(p.Verdicts(vm, exclude...))
		for _, v := range verdicts {
			if !p.world.holds(v, vm, exclude) {
				t.Fatalf("%s is said to be out because it %s (%s, lacks %v); it is not so", v.Host, phrases[v.Reason][0], v.Group, v.Lacks)
			}
			if vectorOf(v.Free) != p.world.free(p.world.hosts[v.HostID]) {
				t.Fatalf("%s is said to have %v free, has %v", v.Host, v.Free, p.world.free(p.world.hosts[v.HostID]))
			}
		}
		e := p.Explain(vm, exclude...)
		if !e.Known {
			if c := p.world.clusters[vm.ClusterId]; c != nil {
				t.Fatalf("%s is said to be unknown", vm.ClusterId)
			}
			return
		}
		sum := e.Fitting
		for _, c := range e.Counts {
			sum += c.Hosts
			least := int64(1 << 62)
			for _, v := range verdicts {
				if v.Reason == c.Reason && v.Group == c.Group && v.Lacks == c.Lacks {
					least = min(least, gapOf(vectorOf(v.Free), vectorOf(vm.Size)))
				}
			}
			if c.Reason == Lacks && gapOf(vectorOf(c.NearestFree), vectorOf(vm.Size)) != least {
				t.Fatalf("%s is said to be nearest, another is nearer", c.Nearest)
			}
		}
		if sum != e.Hosts || len(verdicts) != e.Hosts {
			t.Fatalf("counts add up to %d of %d hosts, %d verdicts", sum, e.Hosts, len(verdicts))
		}
		if _, ok := p.Choose(vm, exclude...); ok != (e.Fitting > 0 && !e.Cordoned) {
			t.Fatalf("a host was chosen: %v; %d are said to fit (cordoned: %v)", ok, e.Fitting, e.Cordoned)
		}
		listed := uint32(e.Fitting)
		for _, r := range e.Refusals()[0].GetReasons() {
			listed += r.GetHosts()
			if !e.Cordoned && !strings.Contains(e.Detail(), fmt.Sprintf("%d %s", r.GetHosts(), r.GetReason())) {
				t.Fatalf("the table says %v, and the sentence %q", r, e.Detail())
			}
		}
		if r := e.Refusals()[0]; r.GetHosts() != uint32(e.Hosts) || listed != r.GetHosts() && len(r.GetReasons()) < reasonsListed {
			t.Fatalf("%d of %d hosts are in the table", listed, e.Hosts)
		}
		for _, s := range []string{e.Detail(), e.Next(), p.ExplainZone(vm).Detail(), p.ExplainZone(vm).Next()} {
			if !strings.HasSuffix(s, ".") || strings.Contains(s, "  ") || strings.Contains(s, "%!") {
				t.Fatalf("not a sentence: %q", s)
			}
		}
	})
}

// small is a cluster of a few hosts, built by name.
func small(strategy apiv1.Cluster_Strategy, hosts ...*apiv1.Host) *Picture {
	p := New()
	p.SetCluster(&apiv1.Cluster{Id: "c", Name: "kvm", ZoneId: "z", Strategy: strategy})
	for _, h := range hosts {
		p.SetHost(h)
	}
	return p
}

func TestARefusalReadsAsTheDocumentationShowsIt(t *testing.T) {
	p := small(apiv1.Cluster_SPREAD,
		available("kvm-1", "c", 4, 512, 100), available("kvm-2", "c", 4, 1024, 100), available("kvm-3", "c", 4, 0, 100),
		with(available("kvm-4", "c", 8, 8192, 100), func(h *apiv1.Host) { h.AdminState = apiv1.Host_CORDONED }))
	p.SetHost(with(available("kvm-2", "c", 4, 4096, 100), nil))
	p.Assign(&apiv1.VM{Id: "big", ClusterId: "c", Size: &apiv1.Resources{MemoryMib: 3072}}, "kvm-2")
	e := p.Explain(&apiv1.VM{ClusterId: "c", Size: &apiv1.Resources{Cores: 1, MemoryMib: 2048, DiskGib: 10}})
	if want := "4 hosts looked at: 3 lack memory (nearest: kvm-2 has 1024 MiB free, 2048 MiB asked), 1 is cordoned."; e.Detail() != want {
		t.Errorf("detail\n%s\nwant\n%s", e.Detail(), want)
	}
	if want := "Choose a smaller flavor, or ask for another cluster."; e.Next() != want {
		t.Errorf("next %q, want %q", e.Next(), want)
	}
}

func TestEveryRefusalNamesAWayOut(t *testing.T) {
	vm := func(cores uint32, affinities ...*apiv1.VM_Affinity) *apiv1.VM {
		return &apiv1.VM{Id: "new", ProjectId: "p", Cluster: "kvm", ClusterId: "c", Zone: "business", ZoneId: "z",
			Size: &apiv1.Resources{Cores: cores, MemoryMib: 1024, DiskGib: 10}, Affinities: affinities}
	}
	apart := &apiv1.VM_Affinity{Group: "web", Rule: apiv1.VM_Affinity_APART}
	together := &apiv1.VM_Affinity{Group: "db", Rule: apiv1.VM_Affinity_TOGETHER}
	one := available("kvm-1", "c", 2, 4096, 100)
	cases := []struct {
		name         string
		picture      *Picture
		vm           *apiv1.VM
		exclude      []string
		detail, next string
	}{
		{"a cluster that nobody knows", New(), vm(1), nil,
			"Cluster kvm is not known here.", "Name a cluster that the zone has, or none."},
		{"a cluster without hosts", small(0), vm(1), nil,
			"Cluster kvm has no hosts.", "Add a host to cluster kvm, or ask for another cluster."},
		{"too large for any host", small(0, one), vm(16), nil,
			"1 host looked at: 1 lacks cores (nearest: kvm-1 has 2 cores free, 16 cores asked).",
			"Choose a smaller flavor (an empty host of kvm takes 2 cores, 4096 MiB and 100 GiB at most), or ask for another cluster."},
		{"cores and memory at once", filled(small(0, one), "kvm-1", 1, 4000), vm(2), nil,
			"1 host looked at: 1 lacks cores and memory (nearest: kvm-1 has 1 core and 96 MiB free, 2 cores and 1024 MiB asked).",
			"Choose a smaller flavor, or ask for another cluster."},
		{"a group that keeps apart", grouped(small(0, one), "kvm-1", apart), vm(1, apart), nil,
			"1 host looked at: 1 has a VM of affinity group web.", "Leave out the affinity group, or add a host to kvm, or ask for another cluster."},
		{"a group that is elsewhere", grouped(small(0, one, available("kvm-2", "c", 1, 4096, 100)), "kvm-2", together), vm(2, together), nil,
			"2 hosts looked at: 1 has no VM of affinity group db, 1 lacks cores (nearest: kvm-2 has 1 core free, 2 cores asked).",
			"Choose a smaller flavor, or ask for another cluster."},
		{"an excluded host", small(0, one), vm(1), []string{"kvm-1"},
			"1 host looked at: 1 is excluded.", "Exclude fewer hosts, or ask for another cluster."},
		{"hosts in maintenance", small(0, with(one, func(h *apiv1.Host) { h.AdminState = apiv1.Host_MAINTENANCE })), vm(1), nil,
			"1 host looked at: 1 is in maintenance.", "Let a host of kvm take VMs again, or ask for another cluster."},
		{"hosts that are down", small(0, with(one, func(h *apiv1.Host) { h.Health = apiv1.Host_DOWN })), vm(1), nil,
			"1 host looked at: 1 is down.", "Wait until a host of kvm is available, or ask for another cluster."},
		{"a host that has not reported", small(0, with(one, func(h *apiv1.Host) { h.Health = 0 })), vm(1), nil,
			"1 host looked at: 1 has not reported yet.", "Wait until a host of kvm is available, or ask for another cluster."},
		{"room by now", small(0, one), vm(1), nil, "1 host looked at: 1 fits.", "Ask again."},
	}
	for _, c := range cases {
		e := c.picture.Explain(c.vm, c.exclude...)
		if e.Detail() != c.detail {
			t.Errorf("%s: detail\n%s\nwant\n%s", c.name, e.Detail(), c.detail)
		}
		if e.Next() != c.next {
			t.Errorf("%s: next\n%s\nwant\n%s", c.name, e.Next(), c.next)
		}
	}
	cordoned := small(0, one)
	cordoned.SetCluster(&apiv1.Cluster{Id: "c", Name: "kvm", ZoneId: "z", Cordoned: true})
	if e := cordoned.Explain(vm(1)); e.Detail() != "Cluster kvm is cordoned." || e.Next() != "Ask for another cluster, or lift the cordon of kvm." {
		t.Errorf("cordoned cluster: %s %s", e.Detail(), e.Next())
	}
}

func TestARefusalTellsWhetherWaitingMayHelp(t *testing.T) {
	one := available("kvm-1", "c", 2, 4096, 100)
	for health, want := range map[apiv1.Host_Health]bool{
		apiv1.Host_HEALTH_UNSPECIFIED: true, apiv1.Host_SUSPECT: true, apiv1.Host_CHECKING: true,
		apiv1.Host_DOWN: false, apiv1.Host_DEGRADED: false, apiv1.Host_AVAILABLE: false,
	} {
		p := small(0, with(one, func(h *apiv1.Host) { h.Health = health }))
		if got := p.Explain(&apiv1.VM{ClusterId: "c", Size: &apiv1.Resources{Cores: 9}}).MayPass(); got != want {
			t.Errorf("%v: %v, want %v", health, got, want)
		}
	}
}

func TestAZonesRefusalSpeaksOfEachCluster(t *testing.T) {
	p := New()
	for _, c := range []*apiv1.Cluster{{Id: "1", Name: "web", ZoneId: "z"}, {Id: "2", Name: "was", ZoneId: "z", Cordoned: true}, {Id: "3", Name: "db", ZoneId: "z"}, {Id: "4", Name: "other", ZoneId: "y"}} {
		p.SetCluster(c)
	}
	p.SetHost(available("web-1", "1", 2, 1024, 10))
	p.SetHost(available("was-1", "2", 2, 1024, 10))
	vm := &apiv1.VM{Zone: "business", ZoneId: "z", Size: &apiv1.Resources{Cores: 4, MemoryMib: 16, DiskGib: 1}}
	z := p.ExplainZone(vm)
	if want := "3 clusters looked at. db: no hosts. was: cordoned. web: 1 host looked at: 1 lacks cores (nearest: web-1 has 2 cores free, 4 cores asked)."; z.Detail() != want {
		t.Errorf("detail\n%s\nwant\n%s", z.Detail(), want)
	}
	if want := "Choose a smaller flavor (an empty host of web takes 2 cores, 1024 MiB and 10 GiB at most), or ask for another zone."; z.Next() != want {
		t.Errorf("next\n%s\nwant\n%s", z.Next(), want)
	}
	var rows []string
	for _, c := range z.Refusals() {
		row := fmt.Sprint(c.GetCluster(), " ", c.GetHosts(), " ", c.GetCordoned())
		for _, r := range c.GetReasons() {
			row += fmt.Sprintf("; %d %s, %s", r.GetHosts(), r.GetReason(), r.GetNearest())
		}
		rows = append(rows, row)
	}
	if want := []string{"db 0 false", "was 1 true; 1 lacks cores, was-1 has 2 cores free, 4 cores asked", "web 1 false; 1 lacks cores, web-1 has 2 cores free, 4 cores asked"}; !slices.Equal(rows, want) {
		t.Errorf("as a table %q", rows)
	}
	nowhere := p.ExplainZone(&apiv1.VM{Zone: "moon", ZoneId: "moon"})
	if nowhere.Detail() != "Zone moon has no clusters." || nowhere.Next() != "Add a cluster to zone moon, or ask for another zone." {
		t.Errorf("%s %s", nowhere.Detail(), nowhere.Next())
	}
}

func TestALongExplanationStaysWithinAProblemsDetail(t *testing.T) {
	p := New()
	long := strings.Repeat("x", 60)
	for i := range 256 {
		id := fmt.Sprintf("%s%03d", long, i)
		p.SetCluster(&apiv1.Cluster{Id: id, Name: id, ZoneId: "z"})
		p.SetHost(available(id, id, 2, 1024, 10))
	}
	z := p.ExplainZone(&apiv1.VM{ZoneId: "z", Size: &apiv1.Resources{Cores: 9, MemoryMib: 9999, DiskGib: 99}})
	if rows := z.Refusals(); len(rows) != clustersListed || len(rows[0].GetReasons()[0].GetNearest()) > 256 {
		t.Errorf("a table of %d clusters, the first %v", len(rows), rows[0])
	}
	detail := z.Detail()
	if len(detail) > 8192 || !strings.HasSuffix(detail, "And 240 more.") {
		t.Errorf("%d bytes: …%s", len(detail), detail[len(detail)-40:])
	}
}

func with(h *apiv1.Host, change func(*apiv1.Host)) *apiv1.Host {
	h = &apiv1.Host{Id: h.Id, Name: h.Name, ClusterId: h.ClusterId, Health: h.Health, Total: h.Total}
	if change != nil {
		change(h)
	}
	return h
}

func filled(p *Picture, host string, cores, memoryMiB uint32) *Picture {
	p.Assign(&apiv1.VM{Id: "filler", ClusterId: "c", Size: &apiv1.Resources{Cores: cores, MemoryMib: memoryMiB}}, host)
	return p
}

func grouped(p *Picture, host string, a *apiv1.VM_Affinity) *Picture {
	p.Assign(&apiv1.VM{Id: "member", ProjectId: "p", ClusterId: "c", Size: &apiv1.Resources{}, Affinities: []*apiv1.VM_Affinity{a}}, host)
	return p
}
