package audit_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const life = "6a1d1c0e-4f9a-4a51-9f3c-0d9f6f1f2b7e"

// localOrigin is that of the log of zoneName.
var localOrigin = audit.LocalOrigin("naru.test", "business", life)

func seed() []byte {
	b := make([]byte, audit.SeedSize)
	rand.Read(b)
	return b
}

// localNote is a note of a zone's own log.
func localNote(t testing.TB, size int, root tlog.Hash, seed []byte) string {
	t.Helper()
	n, err := audit.SignLocal(audit.Checkpoint{Origin: localOrigin, Size: uint64(size), Root: root, Time: start.Add(time.Duration(size) * time.Second)}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAGrowingLogHasTheRootOfRFC6962AtEachSize(t *testing.T) {
	l, g := newLog(t), audit.Growing{}
	for size := range 300 {
		root, err := g.Root()
		if err != nil || root != l.root(t, size) || g.Size != uint64(size) {
			t.Fatalf("at %d: %v, %v", size, root, err)
		}
		before := audit.Growing{Size: g.Size, Hashes: slices.Clone(g.Hashes)}
		l.append(t, entry(size))
		if err := g.Append(l.leaves[size]); err != nil {
			t.Fatal(err)
		}
		if again, _ := before.Root(); again != root {
			t.Fatalf("at %d: what it was is changed", size)
		}
	}
}

func TestALogWhoseHashesAreNotItsDoesNotGrow(t *testing.T) {
	for _, g := range []audit.Growing{{Size: 1}, {Size: 3, Hashes: [][]byte{make([]byte, 32)}}, {Size: 1, Hashes: [][]byte{make([]byte, 31)}}, {Hashes: [][]byte{make([]byte, 32)}}} {
		if _, err := g.Root(); err == nil {
			t.Errorf("%+v has a root", g)
		}
		if err := g.Append([]byte("x")); err == nil {
			t.Errorf("%+v has grown", g)
		}
	}
}

func TestAZoneSignsItsLogWithTheKeyWithWhichItCountersigns(t *testing.T) {
	s := seed()
	witness := audit.WitnessKey(zoneName, s)
	key, err := audit.LocalKey(localOrigin, witness)
	if err != nil {
		t.Fatal(err)
	}
	signed := localNote(t, 3, tlog.Hash{1}, s)
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := note.Open([]byte(signed), note.VerifierList(v)); err != nil || len(n.Sigs) != 1 {
		t.Fatal("who knows signed notes alone cannot check it:", err)
	}
	c, err := audit.OpenLocal(signed, witness)
	if err != nil || c.Origin != localOrigin || c.Size != 3 || c.Root != (tlog.Hash{1}) || c.Epoch != 0 || !c.Time.Equal(start.Add(3*time.Second)) {
		t.Fatal(c, err)
	}
	if zone, incarnation := audit.ParseLocalOrigin(c.Origin); zone != "business" || incarnation != life {
		t.Error(zone, incarnation)
	}
	line, err := audit.Countersign(signed, zoneName, s, start)
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(signed, "\n\n")
	for what, bad := range map[string]string{
		"another's":            localNote(t, 3, tlog.Hash{1}, seed()),
		"another size":         strings.Replace(signed, "\n3\n", "\n4\n", 1),
		"another life":         strings.Replace(signed, life, strings.Replace(life, "6a", "6b", 1), 2),
		"signed twice":         signed + own,
		"countersigned":        signed + line,
		"countersigned alone":  strings.Replace(signed, own, line, 1),
		"without a signature":  strings.TrimSuffix(signed, own),
		"cut off":              signed[:len(signed)-1],
		"the control plane's":  grown(t, 12).checkpoints[0].GetNote(),
		"nothing":              "",
		"with more behind it":  signed + "x",
		"of an epoch (forged)": strings.Replace(signed, "epoch 0", "epoch 1", 1),
	} {
		if _, err := audit.OpenLocal(bad, witness); err == nil {
			t.Errorf("a note %s is taken", what)
		}
	}
}

func TestOnlyAZonesOwnLogIsSignedAndOnlyWithItsKey(t *testing.T) {
	s := seed()
	for what, c := range map[string]audit.Checkpoint{
		"the control plane's log":  {Origin: audit.Origin("naru.test"), Size: 1, Time: start},
		"a log of an epoch":        {Origin: localOrigin, Size: 1, Epoch: 1, Time: start},
		"a life with a space":      {Origin: audit.LocalOrigin("naru.test", "business", "a b"), Size: 1, Time: start},
		"a life with a plus":       {Origin: audit.LocalOrigin("naru.test", "business", "a+b"), Size: 1, Time: start},
		"a life with a line break": {Origin: audit.LocalOrigin("naru.test", "business", "a\nb"), Size: 1, Time: start},
	} {
		if _, err := audit.SignLocal(c, s); err == nil {
			t.Errorf("%s is signed", what)
		}
	}
	if _, err := audit.SignLocal(audit.Checkpoint{Origin: localOrigin, Time: start}, s[:31]); err == nil {
		t.Error("a seed that is too short signs")
	}
	for what, key := range map[string]string{
		"another zone's":         audit.WitnessKey(audit.WitnessName("naru.test", "internet"), s),
		"another federation's":   audit.WitnessKey(audit.WitnessName("naru.other", "business"), s),
		"of a longer name":       audit.WitnessKey(audit.WitnessName("naru.test", "business2"), s),
		"the control plane's":    newLog(t).public,
		"one that does not hold": strings.Replace(audit.WitnessKey(zoneName, s), "+", "+0", 1),
		"none":                   "",
	} {
		if got, err := audit.LocalKey(localOrigin, key); err == nil {
			t.Errorf("of the key %s follows %s", what, got)
		}
	}
	if zone := audit.ZoneOf(localOrigin); zone != "" {
		t.Errorf("the key of a zone's own log counts as that with which %s countersigns", zone)
	}
}

func TestAnEntryHasOneFormAsALeaf(t *testing.T) {
	leaf, err := audit.Leaf(entry(3))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := audit.ReadLeaf(leaf); err != nil || e.GetActor() != "user:u3" {
		t.Fatal(e, err)
	}
	for what, bad := range map[string][]byte{
		"a field that nobody knows": append(bytes.Clone(leaf), 0xfa, 0x7f, 1, 'x'),
		"a field twice":             append(bytes.Clone(leaf), 0x1a, 7, 'u', 's', 'e', 'r', ':', 'u', '3'),
		"no message":                []byte("x"),
	} {
		if _, err := audit.ReadLeaf(bad); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// local is a log that a zone has kept itself, with its newest note alone, as the control plane exports it.
func local(t testing.TB, entries int) *log {
	t.Helper()
	l := &log{zoneSeed: seed(), pieceSize: 7}
	l.zonePublic = audit.WitnessKey(zoneName, l.zoneSeed)
	var err error
	if l.public, err = audit.LocalKey(localOrigin, l.zonePublic); err != nil {
		t.Fatal(err)
	}
	for n := range entries {
		l.append(t, entry(n))
	}
	l.signLocal(t)
	return l
}

func (l *log) signLocal(t testing.TB) {
	t.Helper()
	size := len(l.leaves)
	root := l.root(t, size)
	l.checkpoints = append(l.checkpoints, &apiv1.AuditCheckpoint{Size: strconv.Itoa(size), Root: root[:],
		Time: timestamppb.New(start.Add(time.Duration(size) * time.Second)), Note: localNote(t, size, root, l.zoneSeed)})
}

// exportLocal is the log from an entry on, with the key of the log alone.
func (l *log) exportLocal(t testing.TB, from int) []*apiv1.ExportAuditResponse {
	t.Helper()
	pieces := l.export(t, from)
	pieces[0].Export.Keys = []string{l.public}
	return pieces
}

func TestTheExportOfAZonesLogIsVerifiedWithTheKeyWithWhichItCountersigns(t *testing.T) {
	l, plane := local(t, 40), newLog(t)
	for from := range 40 {
		for what, trust := range map[string]audit.Trust{
			"the zone's key":                    {Keys: []string{l.zonePublic}},
			"the zone's key, and whose it is":   {Keys: []string{l.zonePublic}, Zone: "business"},
			"the key of the log itself":         {Keys: []string{l.public}},
			"the control plane's keys and zone": {Keys: []string{plane.public, plane.zonePublic, l.zonePublic}, Zone: "business"},
			"a note that was kept":              {Keys: []string{l.zonePublic}, Known: []string{l.checkpoints[0].GetNote()}},
		} {
			r, err := audit.Verify(bytes.NewReader(written(t, l.exportLocal(t, from))), trust)
			if err != nil || !r.Pinned || r.To != 40 || r.Newest.Origin != localOrigin {
				t.Fatalf("from %d with %s: %+v, %v", from, what, r, err)
			}
		}
	}
	r, err := audit.Verify(bytes.NewReader(written(t, l.exportLocal(t, 0))), audit.Trust{})
	if err != nil || r.Pinned {
		t.Fatalf("without a key that was kept: %+v, %v", r, err)
	}
}

func TestAZonesLogIsTakenForNoOther(t *testing.T) {
	l, other, plane := local(t, 30), local(t, 30), grown(t, 30)
	for what, c := range map[string]struct {
		pieces []*apiv1.ExportAuditResponse
		trust  audit.Trust
	}{
		"a zone's log for the control plane's": {l.exportLocal(t, 0), audit.Trust{Keys: []string{plane.public, l.zonePublic}}},
		"the control plane's log for a zone's": {plane.export(t, 0), audit.Trust{Keys: []string{plane.public, plane.zonePublic}, Zone: "business"}},
		"a zone's log for another's":           {l.exportLocal(t, 0), audit.Trust{Zone: "internet"}},
		"a log of another key":                 {other.exportLocal(t, 0), audit.Trust{Keys: []string{l.zonePublic}}},
		"a log without any key of the zone": {l.exportLocal(t, 0), audit.Trust{Zone: "business",
			Keys: []string{audit.WitnessKey(audit.WitnessName("naru.test", "internet"), seed())}}},
		"a log that zones have to countersign": {l.exportLocal(t, 0), audit.Trust{Keys: []string{l.zonePublic}, Witnesses: 1}},
	} {
		var f *audit.Fault
		if _, err := audit.Verify(bytes.NewReader(written(t, c.pieces)), c.trust); !errors.As(err, &f) {
			t.Errorf("%s is taken: %v", what, err)
		}
	}
}

// TestAZonesClockMayGoBack: the order is that of the leaves. In the control plane's log it cannot.
func TestAZonesClockMayGoBack(t *testing.T) {
	back := func(l *log) {
		for n := range 20 {
			l.append(t, entry(20-n))
		}
	}
	l := &log{zoneSeed: seed(), pieceSize: 7}
	back(l)
	l.signLocal(t)
	l.zonePublic = audit.WitnessKey(zoneName, l.zoneSeed)
	l.public, _ = audit.LocalKey(localOrigin, l.zonePublic)
	if _, err := audit.Verify(bytes.NewReader(written(t, l.exportLocal(t, 0))), audit.Trust{Keys: []string{l.zonePublic}}); err != nil {
		t.Error("a zone's log:", err)
	}
	plane := newLog(t)
	back(plane)
	plane.sign(t, false)
	var f *audit.Fault
	if _, err := audit.Verify(bytes.NewReader(written(t, plane.export(t, 0))), audit.Trust{Keys: []string{plane.public}}); !errors.As(err, &f) || f.From != 1 {
		t.Errorf("the control plane's log: %v", err)
	}
}

// TestP8EveryEditOfAZonesLogIsFound flips, deletes, reorders and cuts off in the export of a zone's own log, reckoning all anew that is
// not signed. Whoever verifies has kept the zone's key and the newest note.
func TestP8EveryEditOfAZonesLogIsFound(t *testing.T) {
	l := local(t, 25)
	whole := written(t, l.exportLocal(t, 0))
	trust := audit.Trust{Keys: []string{l.zonePublic}, Known: []string{l.checkpoints[0].GetNote()}}
	found := func(r *rapid.T, what string, edited []byte) {
		if bytes.Equal(edited, whole) {
			return
		}
		if _, err := audit.Verify(bytes.NewReader(edited), trust); err == nil {
			r.Fatalf("%s went unseen", what)
		}
	}
	rapid.Check(t, func(r *rapid.T) {
		at := rapid.IntRange(0, len(whole)-1).Draw(r, "at")
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
		found(r, fmt.Sprintf("a flip in byte %d", at), flipped)
		found(r, fmt.Sprintf("an end before byte %d", at), whole[:at])

		again := func(order []int) []byte {
			e := &log{public: l.public, pieceSize: l.pieceSize, checkpoints: l.checkpoints}
			for _, n := range order {
				e.append(t, entry(n))
			}
			pieces := e.exportLocal(t, 0)
			if last := pieces[len(pieces)-1]; rapid.Bool().Draw(r, "move the note") && len(last.GetCheckpoints()) == 0 {
				last.Checkpoints = l.checkpoints
			}
			return written(t, pieces)
		}
		i, j := rapid.IntRange(0, 24).Draw(r, "i"), rapid.IntRange(0, 24).Draw(r, "j")
		order := make([]int, 25)
		for n := range order {
			order[n] = n
		}
		found(r, "a deletion", again(slices.Delete(slices.Clone(order), i, i+1)))
		found(r, "an entry told twice", again(slices.Insert(slices.Clone(order), i, j)))
		found(r, "a truncation", again(order[:i]))
		order[i], order[j] = order[j], order[i]
		found(r, "another order", again(order))
		shorter := &log{public: l.public, zoneSeed: l.zoneSeed, pieceSize: l.pieceSize}
		for n := range i + 1 {
			shorter.append(t, entry(n))
		}
		shorter.signLocal(t) // as the zone itself has signed it then
		if i < 24 {
			found(r, "an earlier state that the zone has signed", written(t, shorter.exportLocal(t, 0)))
		}
	})
}

// TestTheControlPlanesLogSaysWhatAZoneHasBrought: an older or another state of the zone's log, though the zone has signed it, is none of
// which that log tells.
func TestTheControlPlanesLogSaysWhatAZoneHasBrought(t *testing.T) {
	l, plane := local(t, 25), newLog(t)
	for n, size := range []int{1, 9, 20} {
		plane.append(t, entry(n))
		root := l.root(t, size)
		e := entry(n)
		e.Action, e.Target, e.Digest = audit.Merges, &apiv1.Reference{Kind: "audit-log", Id: life, Name: "business/1"}, root[:]
		plane.append(t, e)
	}
	plane.sign(t, false)
	r, err := audit.Verify(bytes.NewReader(written(t, plane.export(t, 0))), audit.Trust{Keys: []string{plane.public}})
	if err != nil || len(r.Seals[life]) != 3 {
		t.Fatal(r, err)
	}
	trust := audit.Trust{Keys: []string{plane.public, l.zonePublic}, Zone: "business", Seals: r.Seals}
	for _, from := range []int{0, 1, 5, 19} {
		r, err := audit.Verify(bytes.NewReader(written(t, l.exportLocal(t, from))), trust)
		if err != nil || r.Sealed != 20 {
			t.Errorf("from %d: %+v, %v", from, r, err)
		}
	}
	signed := func(entries int, changed int) []byte {
		other := &log{public: l.public, zoneSeed: l.zoneSeed, pieceSize: l.pieceSize}
		for n := range entries {
			e := entry(n)
			if n == changed {
				e.Actor = "user:nobody"
			}
			other.append(t, e)
		}
		other.signLocal(t)
		return written(t, other.exportLocal(t, 0))
	}
	for what, file := range map[string][]byte{
		"an older state": signed(19, -1), "a log that was written anew": signed(25, 3), "one whose first entry is another": signed(25, 0),
		"the control plane's log": written(t, plane.export(t, 0)),
	} {
		var f *audit.Fault
		if _, err := audit.Verify(bytes.NewReader(file), trust); !errors.As(err, &f) {
			t.Errorf("%s is taken: %v", what, err)
		}
	}
	if r, err := audit.Verify(bytes.NewReader(signed(25, 22)), trust); err != nil || r.Sealed != 20 {
		t.Errorf("of what came behind the last seal it says something: %+v, %v", r, err)
	}
	trust.Seals = audit.Seals{"another life": r.Seals[life]}
	if _, err := audit.Verify(bytes.NewReader(written(t, l.exportLocal(t, 0))), trust); err == nil || !strings.Contains(err.Error(), "does not tell of it") {
		t.Errorf("of another life: %v", err)
	}
}
