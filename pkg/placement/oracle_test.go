package placement

import (
	"cmp"
	"maps"
	"slices"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// world is the plain truth that a Picture must agree with: maps, and loops over everything.
type world struct {
	clusters map[string]*apiv1.Cluster
	hosts    map[string]*apiv1.Host
	vms      map[string]*apiv1.VM
	on       map[string]string // vm → host
	held     map[string]vector // host →
	kept     map[string]bool   // of vms, those that are no VM but room for one
}

func newWorld() *world {
	return &world{map[string]*apiv1.Cluster{}, map[string]*apiv1.Host{}, map[string]*apiv1.VM{}, map[string]string{}, map[string]vector{}, map[string]bool{}}
}

func (w *world) used(host string) (used vector) {
	used = w.held[host]
	for vm, at := range w.on {
		if at == host {
			for d, n := range vectorOf(w.vms[vm].Size) {
				used[d] += n
			}
		}
	}
	return used
}

func (w *world) capacity(h *apiv1.Host) vector {
	c := w.clusters[h.ClusterId]
	total := vectorOf(h.Total)
	for d, n := range vectorOf(h.Capacity) {
		if n != 0 {
			total[d] = n
		}
	}
	return vector{
		total[cores] * int64(cmp.Or(c.GetCpuOvercommitPercent(), 100)) / 100,
		total[memory] * int64(cmp.Or(c.GetMemoryOvercommitPercent(), 100)) / 100,
		total[disk],
	}
}

func (w *world) free(h *apiv1.Host) (free vector) {
	used := w.used(h.Id)
	for d, n := range w.capacity(h) {
		free[d] = max(0, n-used[d])
	}
	return free
}

// holds tells whether a reason really holds of a host.
func (w *world) holds(v Verdict, vm *apiv1.VM, exclude []string) bool {
	h := w.hosts[v.HostID]
	free, ask := w.free(h), vectorOf(vm.Size)
	switch v.Reason {
	case Fits:
		return w.fits(h, vm, exclude)
	case Cordoned:
		return h.AdminState == apiv1.Host_CORDONED
	case Draining:
		return h.AdminState == apiv1.Host_DRAINING
	case Maintenance:
		return h.AdminState == apiv1.Host_MAINTENANCE
	case Unseen:
		return h.Health == apiv1.Host_HEALTH_UNSPECIFIED
	case Suspect:
		return h.Health == apiv1.Host_SUSPECT
	case Checking:
		return h.Health == apiv1.Host_CHECKING
	case Degraded:
		return h.Health == apiv1.Host_DEGRADED
	case Fencing:
		return h.Health == apiv1.Host_FENCING
	case Fenced:
		return h.Health == apiv1.Host_FENCED
	case Down:
		return h.Health == apiv1.Host_DOWN
	case Excluded:
		return slices.Contains(exclude, h.Id)
	case Apart:
		return w.barred(h, vm, v.Group)
	case Strayed:
		return w.strayed(h, vm, v.Group)
	case Lacks:
		for d := range dimensions {
			if (v.Lacks&(1<<d) != 0) != (ask[d] > free[d]) {
				return false
			}
		}
		return v.Lacks != 0
	}
	return false
}

func (w *world) open(h *apiv1.Host) bool {
	return h.Health == apiv1.Host_AVAILABLE &&
		(h.AdminState == apiv1.Host_ADMIN_STATE_UNSPECIFIED || h.AdminState == apiv1.Host_ENABLED)
}

func (w *world) members(vm *apiv1.VM, group string, fn func(host string, apart bool)) {
	for id, other := range w.vms {
		at, placed := w.on[id]
		if !placed || other.ProjectId != vm.ProjectId || other.ClusterId != vm.ClusterId {
			continue
		}
		for _, a := range other.Affinities {
			if a.Group == group {
				fn(at, a.Rule == apiv1.VM_Affinity_APART)
			}
		}
	}
}

// barred: a member of the group keeps the VM off the host.
func (w *world) barred(h *apiv1.Host, vm *apiv1.VM, group string) (yes bool) {
	for _, a := range vm.Affinities {
		if a.Group == group {
			w.members(vm, group, func(host string, apart bool) {
				yes = yes || host == h.Id && (apart || a.Rule == apiv1.VM_Affinity_APART)
			})
		}
	}
	return yes
}

// strayed: the group has its hosts, and this is none of them.
func (w *world) strayed(h *apiv1.Host, vm *apiv1.VM, group string) bool {
	for _, a := range vm.Affinities {
		if a.Group != group || a.Rule != apiv1.VM_Affinity_TOGETHER {
			continue
		}
		gathered, here := false, false
		w.members(vm, group, func(host string, apart bool) {
			gathered = gathered || !apart
			here = here || !apart && host == h.Id
		})
		if gathered && !here {
			return true
		}
	}
	return false
}

func (w *world) fits(h *apiv1.Host, vm *apiv1.VM, exclude []string) bool {
	if !w.open(h) || slices.Contains(exclude, h.Id) {
		return false
	}
	for _, a := range vm.Affinities {
		if w.barred(h, vm, a.Group) || w.strayed(h, vm, a.Group) {
			return false
		}
	}
	free := w.free(h)
	for d, n := range vectorOf(vm.Size) {
		if n > free[d] {
			return false
		}
	}
	return true
}

// choose compares every host.
func (w *world) choose(clusterID string, vm *apiv1.VM, exclude []string) (hostID string, ok bool) {
	c := w.clusters[clusterID]
	if c == nil || c.Cordoned {
		return "", false
	}
	ask := vectorOf(vm.Size)
	best := uint64(0)
	for _, h := range slices.SortedFunc(maps.Values(w.hosts), func(a, b *apiv1.Host) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Id, b.Id))
	}) {
		if h.ClusterId != clusterID || !w.fits(h, vm, exclude) {
			continue
		}
		free, each := w.free(h), reciprocals(w.capacity(h))
		if s := score(c.Strategy, &free, &ask, &each); s > best {
			best, hostID, ok = s, h.Id, true
		}
	}
	return hostID, ok
}
