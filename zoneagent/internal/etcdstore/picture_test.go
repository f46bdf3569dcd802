package etcdstore

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Whatever is written, deleted, read anew: what the picture finds to report after a revision is what a look at every object
// would find, and it keeps no more than twice of what there is.
func TestThePictureFindsWhatALookAtEverythingFinds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p, truth, revision := newPicture(), map[string]Change{}, int64(0)
		all := func(after int64) (rows []Change) {
			for _, c := range truth {
				if c.Revision > after {
					rows = append(rows, c)
				}
			}
			slices.SortFunc(rows, func(a, b Change) int {
				return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Space, b.Space), cmp.Compare(a.ID, b.ID))
			})
			return rows
		}
		names := func(rows []Change) (out []string) {
			for _, c := range rows {
				out = append(out, fmt.Sprint(c.Revision, c.Space, c.ID))
			}
			slices.Sort(out)
			return out
		}
		p.apply(Batch{Reset: true, Revision: 1, Incarnation: "i"})
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			if rapid.IntRange(0, 9).Draw(r, "reset") == 0 {
				rows := all(0)
				slices.SortFunc(rows, func(a, b Change) int { return cmp.Compare(a.ID, b.ID) })
				p.apply(Batch{Reset: true, Changes: rows, Revision: revision + 1, Incarnation: "i"})
				revision++
				continue
			}
			revision++
			b := Batch{Incarnation: "i"}
			for range rapid.IntRange(1, 40).Draw(r, "together") {
				c := Change{
					Space: rapid.SampledFrom([]Space{Observed, tombstones}).Draw(r, "space"), Kind: "vm",
					ID: fmt.Sprint(rapid.IntRange(0, 25).Draw(r, "id")), Revision: revision, Message: &apiv1.VM{},
				}
				key := string(c.Space) + c.ID
				if rapid.IntRange(0, 4).Draw(r, "delete") == 0 {
					c.Message = nil
					delete(truth, key)
				} else {
					truth[key] = c
				}
				b.Changes = append(b.Changes, c)
			}
			b.Revision = revision
			p.apply(b)
		}
		after, limit := rapid.Int64Range(0, revision+1).Draw(r, "after"), rapid.IntRange(1, 30).Draw(r, "limit")
		want := all(after)
		rows, more := p.since(after, limit)
		if got := names(rows); !slices.Equal(got, names(want[:len(rows)])) || more != (len(rows) < len(want)) {
			r.Fatalf("after %d: %v, more %v; there is %v", after, got, more, names(want))
		}
		if more {
			last := rows[len(rows)-1].Revision
			if want[len(rows)].Revision == last || len(rows) > limit && rows[0].Revision != last {
				r.Fatalf("limit %d: cut to %v of %v", limit, names(rows), names(want))
			}
		}
		if most := 2*len(truth) + maxObserved + 41; len(p.log) > most {
			r.Fatalf("%d rows for %d objects", len(p.log), len(truth))
		}
	})
}

// An agent that has just taken the link over may have heard less than was reported before it: that is no reason to report
// everything anew.
func TestAPictureThatIsBehindIsWaitedFor(t *testing.T) {
	z := newZone(t)
	a := z.one()
	own := a.own("cluster/c1")
	b := z.idle(z.config(2, 1))
	life, _ := b.Incarnation()
	first := a.write(own, "vm-1")
	b.picture.apply(Batch{Reset: true, Revision: first, Incarnation: life.GetId(), Changes: []Change{
		{Space: Observed, Kind: "vm", ID: "vm-1", Revision: first, Message: vm("vm-1")},
	}})
	second := a.write(own, "vm-2")
	source, point := b.ObservedSource(b.own(UplinkName)), &linkv1.StateAckPoint{Incarnation: life.GetId(), Revision: uint64(second)}
	if c := must(source.Since(t.Context(), point, 10)); c != nil {
		t.Errorf("a point that the store is beyond, and the picture is not yet: %v", c)
	}
	third := a.write(own, "vm-3")
	b.picture.apply(Batch{Revision: third, Incarnation: life.GetId(), Changes: []Change{
		{Space: Observed, Kind: "vm", ID: "vm-2", Revision: second, Message: vm("vm-2")},
		{Space: Observed, Kind: "vm", ID: "vm-3", Revision: third, Message: vm("vm-3")},
	}})
	if c := must(source.Since(t.Context(), point, 10)); len(c.GetObjects()) != 1 || c.GetObjects()[0].GetVm().GetId() != "vm-3" || c.GetFull() {
		t.Errorf("once the picture is beyond it: %v", c)
	}
}

// P24: in another life of the store nothing of what was heard in the one before counts.
func TestInAnotherIncarnationEverythingIsReportedAnew(t *testing.T) {
	a := newZone(t).one()
	own, link := a.own("cluster/c1"), a.own(UplinkName)
	a.write(own, "vm-1", "vm-2")
	source := a.ObservedSource(link)
	c := a.since(source, nil, 10)
	point := &linkv1.StateAckPoint{Incarnation: c.GetIncarnation(), Revision: c.GetThrough()}
	if err := a.Renew(t.Context(), "the store was put back"); err != nil {
		t.Fatal(err)
	}
	life, _ := a.Incarnation()
	source = a.ObservedSource(link)
	for c = nil; c == nil; c = must(source.Since(t.Context(), point, 10)) {
		<-source.Changed()
	}
	if !c.GetFull() || c.GetIncarnation() != life.GetId() || len(c.GetObjects()) != 2 {
		t.Errorf("came %v", c)
	}
}

func TestThePictureTellsWhatIsWantedWithWhatIsSeenOfIt(t *testing.T) {
	p := newPicture()
	p.apply(Batch{Reset: true, Revision: 3, Changes: []Change{
		{Space: Desired, Kind: "vm", ID: "a", Message: vm("a")}, {Space: Desired, Kind: "vm", ID: "b", Message: vm("b")},
		{Space: Desired, Kind: "host", ID: "h", Message: &apiv1.Host{}}, {Space: Observed, Kind: "vm", ID: "b", Message: &apiv1.VM{Host: "h"}},
		{Space: Observed, Kind: "vm", ID: "c", Message: vm("c")},
	}})
	got := map[string]string{}
	p.Nouns("vm", func(desired, observed proto.Message) {
		is, _ := observed.(*apiv1.VM)
		got[desired.(*apiv1.VM).GetId()] = is.GetHost()
	})
	if fmt.Sprint(got) != "map[a: b:h]" {
		t.Errorf("told were %v", got)
	}
}
