package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/placement"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// A VM that is to have another size gets the room for it before the worker begins, on the host that it is on: until that is over
// it has what it had and what it is to have, whichever is more. Where the host has no room, that answers the wish, and nothing
// was changed. What is more than it has in the end is given back once the worker has told what it has.

// taken is what a VM takes of its host.
func taken(wanted, is *apiv1.VM) *apiv1.VM {
	if is.GetAllocated() == nil || wanted == nil || proto.Equal(is.GetAllocated(), wanted.GetSize()) {
		return wanted
	}
	vm := proto.CloneOf(wanted)
	vm.Size = is.GetAllocated()
	return vm
}

// toAllocate is what is to be taken of a VM's host for it; nil where that is so already.
func (b *book) toAllocate(id string) (size *apiv1.Resources, grows bool) {
	wanted, is := b.desired[id], b.observed[id].value
	if wanted == nil || is.GetHostId() == "" || b.unclaimed[id] {
		return nil, false
	}
	has := is.GetAllocated()
	if has == nil {
		has = wanted.GetSize()
	}
	answered := schema.CompareGenerations(is.GetReached(), wanted.GetGeneration()) >= 0
	switch {
	case !answered && wanted.GetErrand().GetKind() == apiv1.VM_Errand_RESIZE:
		if size = more(has, wanted.GetSize()); is.GetAllocated() != nil && proto.Equal(size, has) {
			return nil, false
		}
		return size, true
	case answered && is.GetActual() != nil && !proto.Equal(is.GetActual(), has):
		return is.GetActual(), false
	}
	return nil, false
}

// more is the greater of each.
func more(a, b *apiv1.Resources) *apiv1.Resources {
	return &apiv1.Resources{
		Cores:     max(a.GetCores(), b.GetCores()),
		MemoryMib: max(a.GetMemoryMib(), b.GetMemoryMib()),
		DiskGib:   max(a.GetDiskGib(), b.GetDiskGib()),
	}
}

// resized is a VM of whose host another amount is taken.
type resized struct {
	vm   *apiv1.VM // as it is to be observed
	want *apiv1.VM
	why  *apiv1.Problem // the room is not there
}

// planSizes gives VMs the room that they need, or takes back what they do not, as far as room in the transaction goes.
func (t *Term) planSizes(p *plan, room int) (left int) {
	for _, id := range slices.Sorted(maps.Keys(t.book.sizes)) {
		if room == 0 {
			break
		}
		size, grows := t.book.toAllocate(id)
		if size == nil {
			continue
		}
		wanted, is := t.book.desired[id], proto.CloneOf(t.book.observed[id].value)
		r := resized{vm: is, want: wanted}
		next := proto.CloneOf(wanted)
		next.Size = size
		if grows && t.mustWaitToGrow(p, wanted) {
			t.stall()
			continue
		}
		lacks := ""
		if grows {
			lacks = t.grow(p, next, is.GetHostId())
		} else {
			t.book.picture.Assign(next, is.GetHostId())
		}
		if lacks != "" {
			r.why = t.noRoom(wanted, is, lacks)
			is.Reached, is.Task = wanted.GetGeneration(), apiv1.VM_TASK_UNSPECIFIED
		} else {
			is.Allocated = size
			p.hosts[is.GetHostId()] = true
		}
		p.resized = append(p.resized, r)
		room--
	}
	return room
}

// noRoom says why a VM cannot have its new size where it is, and who could take it.
func (t *Term) noRoom(wanted, is *apiv1.VM, lacks string) *apiv1.Problem {
	var others []string
	for v := range t.book.picture.Verdicts(wanted, is.GetHostId()) {
		if v.Reason == placement.Fits {
			others = append(others, v.Host)
		}
	}
	where := "No other host of the cluster has the room either."
	next := "Choose a smaller flavor, or make room on host " + is.GetHost() + "."
	if len(others) > 0 {
		if len(others) > 3 {
			others = append(others[:3], "…")
		}
		where = "It would fit on " + strings.Join(others, ", ") + ", and a VM is resized on the host that it is on."
		next = "Make room on host " + is.GetHost() + ", or make another VM of that flavor."
	}
	return problem.New(problem.NoHostFits, fmt.Sprintf("Host %s of VM %s %s. %s", is.GetHost(), wanted.GetName(), lacks, where), next).Problem
}

func (t *Term) writeSizes(tx Tx, p *plan) {
	for _, r := range p.resized {
		t.unmoved(tx, r.want)
		tx.PutObserved(r.vm)
		if r.why != nil {
			tx.Journal(report(p.now, r.want, &linkv1.OperationReport{
				Step: step(p.now, "room", apiv1.Operation_Step_FAILED, r.why.GetDetail()), Done: true, Error: r.why,
			})...)
		} else if r.want.GetErrand() != nil && schema.CompareGenerations(r.vm.GetReached(), r.want.GetGeneration()) < 0 {
			tx.Journal(report(p.now, r.want, &linkv1.OperationReport{
				Step: step(p.now, "room", apiv1.Operation_Step_DONE, "on "+r.vm.GetHost()), Progress: 20,
			})...)
		}
	}
}

func (t *Term) settleSizes(p *plan, revision int64) {
	for _, r := range p.resized {
		t.book.observed[r.vm.GetId()] = seen[*apiv1.VM]{r.vm, revision}
		t.book.relate(r.vm.GetId())
	}
}
