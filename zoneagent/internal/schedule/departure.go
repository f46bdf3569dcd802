package schedule

import (
	"context"
	"net/netip"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// departure is a VM that its host does not hold any more.
type departure struct {
	VM        *apiv1.VM // with id, name and the generation that wanted it away
	journal   []*linkv1.JournalEntry
	committed chan struct{}
	address   netip.Addr // that it leases; zero: none
}

// Depart ends a VM that is gone from its host for good: tombstone, room, address and work go, and the entries are
// journalled, in one transaction. It returns when that is durable. The caller has seen that the VM is gone.
func (t *Term) Depart(ctx context.Context, vm *apiv1.VM, entries ...*linkv1.JournalEntry) error {
	d := &departure{VM: vm, journal: entries, committed: make(chan struct{})}
	select {
	case t.leaving <- d:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.ended:
		return t.failed
	}
	select {
	case <-d.committed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.ended:
		return t.failed
	}
}

func (t *Term) planDeparture(p *plan, d *departure) {
	id := d.VM.GetId()
	is := t.book.observed[id].value
	t.book.picture.Release(id)
	p.left = append(p.left, d)
	if host := is.GetHostId(); host != "" {
		p.hosts[host] = true
		if t.book.unknown[host] != nil {
			delete(t.book.unknown[host], id)
			t.book.hold(host)
		}
	}
	d.address = netip.Addr{}
	if t.book.leases[is.GetAddress()].value.GetVmId() == id {
		d.address, _ = netip.ParseAddr(is.GetAddress())
	}
}

func (t *Term) writeDeparture(tx Tx, d *departure) {
	id := d.VM.GetId()
	if t.book.observed[id].value == nil {
		t.unmoved(tx, d.VM) // there is really nothing to be given back
	}
	tx.Tombstone(reference(d.VM), d.VM.GetGeneration())
	tx.DeleteWork(id)
	if d.address.IsValid() {
		tx.FreeAddress(d.address, t.book.leases[d.address.String()].revision)
	}
	tx.Journal(d.journal...)
}

func (t *Term) settleDeparture(d *departure, revision int64) {
	id := d.VM.GetId()
	t.book.observed[id] = seen[*apiv1.VM]{nil, revision}
	t.book.gone[id] = d.VM.GetGeneration()
	if d.address.IsValid() {
		t.book.lease(d.address.String(), seen[*zonev1.AddressLease]{nil, revision})
	}
	t.book.relate(id)
	close(d.committed)
}
