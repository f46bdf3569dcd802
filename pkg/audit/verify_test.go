package audit_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAnExportAsItWasSignedIsVerified(t *testing.T) {
	l := grown(t, 60)
	for from := range 60 {
		r, err := audit.Verify(bytes.NewReader(written(t, l.export(t, from))), l.trust())
		if err != nil {
			t.Fatalf("from %d: %v", from, err)
		}
		if r.From != uint64(from) || r.To != 60 || r.Newest.Size != 60 || r.Newest.Epoch != 7 || !r.Pinned || r.Known != 1 ||
			r.Witnesses["naru.test/zone/business"] != 60 {
			t.Fatalf("from %d: %+v", from, r)
		}
	}
}

func TestWithoutAKeyFromElsewhereAnExportIsWholeButNobodys(t *testing.T) {
	l := grown(t, 30)
	r, err := audit.Verify(bytes.NewReader(written(t, l.export(t, 0))), audit.Trust{})
	if err != nil || r.Pinned {
		t.Fatal(r, err)
	}
}

// TestAFaultSaysWhichEntry: what was changed is told to the entry, or to the span between two checkpoints where who changed it has
// reckoned its hash anew.
func TestAFaultSaysWhichEntry(t *testing.T) {
	l := grown(t, 60)
	for k := range 60 {
		for name, edit := range map[string]func(p *apiv1.ExportAuditResponse, i int) (exact bool){
			"changed": func(p *apiv1.ExportAuditResponse, i int) bool { p.Leaves[i][10] ^= 1; return true },
			"changed, with its hash": func(p *apiv1.ExportAuditResponse, i int) bool {
				e := &apiv1.AuditEntry{}
				if err := proto.Unmarshal(p.Leaves[i], e); err != nil {
					t.Fatal(err)
				}
				e.Actor = "user:nobody"
				put(t, p, i, e)
				return false
			},
			"deleted": func(p *apiv1.ExportAuditResponse, i int) bool {
				p.Leaves, p.Hashes = slices.Delete(p.Leaves, i, i+1), slices.Delete(p.Hashes, i, i+1)
				return true
			},
		} {
			pieces := clone(l.export(t, 0))
			exact := edit(pieces[1+k/l.pieceSize], k%l.pieceSize)
			_, err := audit.Verify(bytes.NewReader(written(t, pieces)), l.trust())
			var f *audit.Fault
			if !errors.As(err, &f) {
				t.Fatalf("entry %d %s: %v", k, name, err)
			}
			at := uint64(k)
			switch {
			case name == "deleted" && k == 59: // the last: the end is missing
			case exact && name == "deleted" && f.From > at+1, exact && name == "changed" && (f.From != at || f.To != at+1):
				t.Errorf("entry %d %s: found at %v", k, name, f)
			case !exact && (at < f.From || at >= f.To):
				t.Errorf("entry %d %s: found among %d to %d", k, name, f.From, f.To)
			}
		}
	}
}

func TestAKeyThatWasKeptHasToHaveSigned(t *testing.T) {
	l, other := grown(t, 30), newLog(t)
	for name, trust := range map[string]audit.Trust{
		"another key of the log":        {Keys: []string{other.public}},
		"another key of the zone":       {Keys: []string{l.public, other.zonePublic}},
		"a zone whose key was not kept": {Keys: []string{l.public}, Witnesses: 1},
		"a zone of another name":        {Keys: []string{l.public, l.zonePublic}, Named: []string{"internet"}},
		"more zones than have":          {Keys: []string{l.public, l.zonePublic}, Witnesses: 2},
	} {
		if _, err := audit.Verify(bytes.NewReader(written(t, l.export(t, 0))), trust); err == nil {
			t.Errorf("%s is no fault", name)
		}
	}
	bare := newLog(t)
	for n := range 30 {
		bare.append(t, entry(n))
	}
	bare.sign(t, false)
	kept := []string{bare.public, bare.zonePublic}
	for _, trust := range []audit.Trust{{Keys: kept, Witnesses: 1}, {Keys: kept, Named: []string{"business"}}} {
		_, err := audit.Verify(bytes.NewReader(written(t, bare.export(t, 0))), trust)
		var f *audit.Fault
		if !errors.As(err, &f) || f.From != 0 || f.To != 30 || !strings.Contains(f.What, "countersigned") {
			t.Errorf("a log that no zone has seen: %v", err)
		}
	}
}

// TestZonesHaveToHaveSeenNearlyAllOfIt: what was countersigned long before the newest checkpoint vouches for nothing since.
func TestZonesHaveToHaveSeenNearlyAllOfIt(t *testing.T) {
	l := grown(t, 30)
	l.append(t, entry(30))
	l.sign(t, false) // a second later
	for lag, good := range map[time.Duration]bool{0: false, time.Second: true} {
		trust := audit.Trust{Keys: []string{l.public, l.zonePublic}, Witnesses: 1, Named: []string{"business"}, Lag: lag}
		r, err := audit.Verify(bytes.NewReader(written(t, l.export(t, 0))), trust)
		if (err == nil) != good {
			t.Fatalf("with a lag of %v: %v", lag, err)
		}
		var f *audit.Fault
		if good && r.Witnesses[zoneName] != 30 || !good && (!errors.As(err, &f) || f.From != 30 || f.To != 31) {
			t.Errorf("with a lag of %v: %+v, %v", lag, r, err)
		}
	}
}

// TestWhatARestoreHasLostIsTold, and that of the same epoch is a fork.
func TestWhatARestoreHasLostIsTold(t *testing.T) {
	l := grown(t, 30)
	lost := func(entries int, epoch uint64) string {
		other := *l
		other.entries, other.stored, other.leaves, other.checkpoints = nil, nil, nil, nil
		for n := range entries {
			other.append(t, entry(n+1)) // another
		}
		other.epoch = epoch
		other.sign(t, true)
		return other.checkpoints[0].GetNote()
	}
	verify := func(note string) (*audit.Report, error) {
		pieces := clone(l.export(t, 0))
		pieces[0].Export.Lost = []string{note}
		return audit.Verify(bytes.NewReader(written(t, pieces)), l.trust())
	}
	for _, entries := range []int{20, 40} { // within the log, and beyond its end
		r, err := verify(lost(entries, 6))
		if err != nil || len(r.Lost) != 1 || r.Lost[0].Size != uint64(entries) || !slices.Equal(r.Lost[0].By, []string{zoneName}) {
			t.Errorf("%d entries of an earlier epoch: %+v, %v", entries, r, err)
		}
		if _, err := verify(lost(entries, 7)); err == nil || !strings.Contains(err.Error(), "forked") {
			t.Errorf("%d entries of the same epoch: %v", entries, err)
		}
	}
	if _, err := verify(l.checkpoints[0].GetNote()); err == nil || !strings.Contains(err.Error(), "is not") {
		t.Errorf("what the log holds is said to be lost: %v", err)
	}
	bare := newLog(t)
	bare.append(t, entry(0))
	bare.sign(t, false)
	if _, err := verify(bare.checkpoints[0].GetNote()); err == nil {
		t.Error("what nobody has signed is believed to be lost")
	}
}

// TestASignatureHasOneForm: base64 leaves bits at its end that say nothing.
func TestASignatureHasOneForm(t *testing.T) {
	l := grown(t, 12)
	note := []byte(l.checkpoints[0].GetNote())
	seen := 0
	for _, line := range bytes.SplitAfter(note, []byte("\n")) {
		if !bytes.HasPrefix(line, []byte("—")) {
			continue
		}
		padding := bytes.Count(line, []byte("="))
		at := bytes.Index(note, line) + len(line) - padding - 2 // the last letter
		for bit := range 2 * padding {
			changed := bytes.Clone(note)
			changed[at] = flipSpare(changed[at], bit)
			if _, _, err := audit.Open(string(changed), []string{l.public, l.zonePublic}); err == nil {
				t.Errorf("a spare bit of %s may be changed", line)
			}
			seen++
		}
	}
	if seen != 2+4 {
		t.Fatalf("%d bits were tried", seen)
	}
}

// flipSpare flips one of the lowest bits of a letter of base64.
func flipSpare(letter byte, bit int) byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return letters[strings.IndexByte(letters, letter)^1<<bit]
}

func TestACountersignatureOfSomethingElseIsNotAttached(t *testing.T) {
	a, b := grown(t, 30), grown(t, 31)
	line, err := audit.Countersign(b.checkpoints[len(b.checkpoints)-1].GetNote(), zoneName, a.zoneSeed, start)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Attach(a.checkpoints[0].GetNote(), line, a.zonePublic); err == nil {
		t.Error("it is attached")
	}
}

// TestP8EveryEditIsFound edits an export 10,000 times (NARU_AUDIT_EDITS says how often), as somebody who knows the format and can
// reckon everything that is not signed, and in every other edit as somebody who has stolen the control plane's key. Whoever verifies
// has kept the keys and the newest checkpoint.
func TestP8EveryEditIsFound(t *testing.T) {
	edits := 10_000
	if s := os.Getenv("NARU_AUDIT_EDITS"); s != "" {
		var err error
		if edits, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("NARU_AUDIT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	l := grown(t, 40)
	whole, trust := written(t, l.export(t, 0)), l.trust()
	made := map[string]int{}
	for n := range edits {
		kind := kinds[random.IntN(len(kinds))]
		edited := kind.edit(t, l, random, bytes.Clone(whole))
		if bytes.Equal(edited, whole) {
			continue
		}
		made[kind.name]++
		if _, err := audit.Verify(bytes.NewReader(edited), trust); err == nil {
			t.Fatalf("edit %d with NARU_AUDIT_SEED=%d went unseen: %s", n, seed, kind.name)
		}
	}
	for _, k := range kinds {
		if made[k.name] < edits/len(kinds)/2 {
			t.Errorf("%q was tried %d times in %d edits", k.name, made[k.name], edits)
		}
	}
}

type kind struct {
	name string
	edit func(t testing.TB, l *log, r *rand.Rand, whole []byte) []byte
}

// kinds of edits: of the bytes, of the pieces, and of the log.
var kinds = []kind{
	{"flip a bit", func(_ testing.TB, _ *log, r *rand.Rand, b []byte) []byte {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return b
	}},
	{"delete bytes", func(_ testing.TB, _ *log, r *rand.Rand, b []byte) []byte {
		at := r.IntN(len(b))
		return slices.Delete(b, at, min(len(b), at+1+r.IntN(300)))
	}},
	{"insert bytes", func(_ testing.TB, _ *log, r *rand.Rand, b []byte) []byte {
		at, from := r.IntN(len(b)), r.IntN(len(b))
		return slices.Insert(b, at, bytes.Clone(b[from:min(len(b), from+1+r.IntN(300))])...)
	}},
	{"cut off", func(_ testing.TB, _ *log, r *rand.Rand, b []byte) []byte { return b[:r.IntN(len(b))] }},
	{"delete a piece", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		p := l.export(t, 0)
		at := r.IntN(len(p))
		return written(t, slices.Delete(p, at, at+1))
	}},
	{"swap pieces", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		p := l.export(t, 0)
		i, j := r.IntN(len(p)), r.IntN(len(p))
		p[i], p[j] = p[j], p[i]
		return written(t, p)
	}},
	{"change an entry and its hash", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		return written(t, l.remade(t, r, func(k int, entries []*apiv1.AuditEntry) []*apiv1.AuditEntry {
			change(r, entries[k])
			return entries
		}))
	}},
	{"delete an entry and count anew", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		return written(t, l.remade(t, r, func(k int, entries []*apiv1.AuditEntry) []*apiv1.AuditEntry {
			return slices.Delete(entries, k, k+1)
		}))
	}},
	{"insert an entry and count anew", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		return written(t, l.remade(t, r, func(k int, entries []*apiv1.AuditEntry) []*apiv1.AuditEntry {
			return slices.Insert(entries, k, proto.CloneOf(entries[r.IntN(len(entries))]))
		}))
	}},
	{"reorder entries and count anew", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		return written(t, l.remade(t, r, func(k int, entries []*apiv1.AuditEntry) []*apiv1.AuditEntry {
			j := (k + 1 + r.IntN(len(entries)-1)) % len(entries)
			entries[k], entries[j] = entries[j], entries[k]
			entries[k].Time, entries[j].Time = entries[j].Time, entries[k].Time
			return entries
		}))
	}},
	{"end at an earlier checkpoint", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		size, _ := strconv.Atoi(l.checkpoints[r.IntN(len(l.checkpoints)-1)].GetSize())
		short := &log{private: l.private, public: l.public, zonePublic: l.zonePublic, pieceSize: l.pieceSize, checkpoints: l.checkpoints,
			leaves: l.leaves[:size], stored: l.stored}
		return written(t, short.export(t, 0))
	}},
	{"sign a fork with the stolen key", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		fork := newLog(t)
		fork.private, fork.public, fork.zonePublic, fork.pieceSize = l.private, l.public, l.zonePublic, l.pieceSize
		k := r.IntN(len(l.entries))
		for n, e := range l.entries {
			e = proto.CloneOf(e)
			if n == k {
				change(r, e)
			}
			fork.append(t, e)
			if n < k {
				for _, c := range l.checkpoints {
					if c.GetSize() == strconv.Itoa(n+1) {
						fork.checkpoints = append(fork.checkpoints, c)
					}
				}
			}
		}
		fork.sign(t, false)
		return written(t, fork.export(t, 0))
	}},
	{"sign with a key of the same name", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		forged := newLog(t)
		forged.zonePublic = l.zonePublic
		for _, e := range l.entries {
			forged.append(t, proto.CloneOf(e))
		}
		forged.sign(t, false)
		p := forged.export(t, 0)
		if r.IntN(2) == 0 {
			p[0].Export.Keys = []string{l.public, l.zonePublic}
		}
		return written(t, p)
	}},
	{"take the signature of another checkpoint", func(t testing.TB, l *log, r *rand.Rand, _ []byte) []byte {
		p := clone(l.export(t, 0))
		var all []*apiv1.AuditCheckpoint
		for _, piece := range p {
			all = append(all, piece.GetCheckpoints()...)
		}
		i := r.IntN(len(all))
		j := (i + 1 + r.IntN(len(all)-1)) % len(all)
		text, _, _ := strings.Cut(all[i].GetNote(), "\n\n")
		_, signatures, _ := strings.Cut(all[j].GetNote(), "\n\n")
		all[i].Note = text + "\n\n" + signatures
		return written(t, p)
	}},
}

// remade exports the log with its entries edited: counted and hashed anew, with the checkpoints as they were signed.
func (l *log) remade(t testing.TB, r *rand.Rand, edit func(k int, entries []*apiv1.AuditEntry) []*apiv1.AuditEntry) []*apiv1.ExportAuditResponse {
	t.Helper()
	var entries []*apiv1.AuditEntry
	for _, e := range l.entries {
		entries = append(entries, proto.CloneOf(e))
	}
	entries = edit(r.IntN(len(entries)), entries)
	m := &log{private: l.private, public: l.public, zonePublic: l.zonePublic, pieceSize: l.pieceSize, checkpoints: l.checkpoints}
	for n, e := range entries {
		if n > 0 && e.GetTime().AsTime().Before(entries[n-1].GetTime().AsTime()) {
			e.Time = entries[n-1].GetTime()
		}
		m.append(t, e)
	}
	p := m.export(t, 0)
	if r.IntN(2) == 0 {
		p[0].Export.Count = strconv.Itoa(len(l.entries))
	}
	return p
}

// change changes something of an entry.
func change(r *rand.Rand, e *apiv1.AuditEntry) {
	switch r.IntN(5) {
	case 0:
		e.Actor += "x"
	case 1:
		e.Action = "vm.delete"
	case 2:
		e.Outcome = apiv1.AuditEntry_REFUSED
	case 3:
		e.Time = timestamppb.New(e.GetTime().AsTime().Add(time.Microsecond))
	case 4:
		e.Digest = append([]byte(nil), e.GetDigest()...)
		e.Digest[r.IntN(32)] ^= 1 << r.IntN(8)
	}
}

func put(t testing.TB, p *apiv1.ExportAuditResponse, i int, e *apiv1.AuditEntry) {
	t.Helper()
	leaf, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	h := tlog.RecordHash(leaf)
	p.Leaves[i], p.Hashes[i] = leaf, h[:]
}

func clone(pieces []*apiv1.ExportAuditResponse) (out []*apiv1.ExportAuditResponse) {
	for _, p := range pieces {
		out = append(out, proto.CloneOf(p))
	}
	return out
}
