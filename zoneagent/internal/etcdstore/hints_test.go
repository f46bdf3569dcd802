package etcdstore

import (
	"testing"
)

func hinted(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestHintsAreForThoseWhoAskedForTheirSpace(t *testing.T) {
	var h hints
	done := make(chan struct{})
	c := h.subscribe(done, Observed)
	if !hinted(c) {
		t.Error("a new subscriber is not told to look")
	}
	for range 3 {
		h.tell(Observed)
	}
	if !hinted(c) || hinted(c) {
		t.Error("what was told before anyone looked is not one hint")
	}
	h.tell(Work)
	if hinted(c) {
		t.Error("hinted at another space")
	}
	h.tell()
	if !hinted(c) {
		t.Error("a hint at everything does not come")
	}
	close(done)
	h.tell(Observed)
	if len(h.subs) != 0 {
		t.Error("it is not forgotten")
	}
}

func TestASourceIsToldOfWhatOthersWrite(t *testing.T) {
	z := newZone(t)
	a := z.one()
	b := z.open(z.config(2, 1))
	link := a.own(UplinkName)
	states, entries := a.ObservedSource(link), a.JournalSource(link)
	own := b.own("cluster/c1")
	// Watches stand; what was told by then is taken.
	b.write(own, "vm-0")
	eventually(t, "hints come", func() bool { return hinted(states.Changed()) && hinted(entries.Changed()) })
	for i := range 3 {
		at := a.Revision()
		b.write(own, "vm-1")
		<-states.Changed()
		<-entries.Changed()
		if i == 2 && a.Revision() < at {
			t.Error("revisions go back")
		}
	}
}
