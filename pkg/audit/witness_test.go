package audit_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/pkg/audit"
)

// TestACountersignatureHasTheFormOfC2SP reckons by hand what cosignature/v1 asks for.
func TestACountersignatureHasTheFormOfC2SP(t *testing.T) {
	l := grown(t, 12)
	note := l.checkpoints[0].GetNote()
	text, signatures, _ := strings.Cut(note, "\n\n")
	line := strings.SplitAfter(signatures, "\n")[1]
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(line, "— "+zoneName+" "), "\n"))
	if err != nil || len(b) != 4+8+ed25519.SignatureSize {
		t.Fatalf("%q: %v", line, err)
	}
	public := ed25519.NewKeyFromSeed(l.zoneSeed).Public().(ed25519.PublicKey)
	id := sha256.Sum256(append([]byte(zoneName+"\n\x04"), public...))
	stamp := binary.BigEndian.Uint64(b[4:12])
	if string(b[:4]) != string(id[:4]) || stamp != uint64(start.Add(12*time.Second).Unix()) {
		t.Errorf("key id %x, want %x; time %d", b[:4], id[:4], stamp)
	}
	if !ed25519.Verify(public, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", stamp, text), b[12:]) {
		t.Error("it is not the signature of the time and the checkpoint")
	}
	if want := fmt.Sprintf("%s+%x+%s", zoneName, id[:4], base64.StdEncoding.EncodeToString(append([]byte{4}, public...))); l.zonePublic != want {
		t.Errorf("the key is %s, want %s", l.zonePublic, want)
	}
}

func TestACountersignatureIsOneGoodLineOfTheKeysUnderTheLogsOwn(t *testing.T) {
	l, other := newLog(t), newLog(t)
	l.append(t, entry(0))
	l.sign(t, false)
	note := l.checkpoints[0].GetNote()
	line, err := audit.Countersign(note, zoneName, l.zoneSeed, start)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := audit.Countersigned(note, line, l.zonePublic, []string{l.public}); err != nil || c.Size != 1 {
		t.Fatal(c, err)
	}
	foreign, _ := audit.Countersign(note, zoneName, other.zoneSeed, start)
	for what, err := range map[string]error{
		"another log's key":     second(audit.Countersigned(note, line, l.zonePublic, []string{other.public})),
		"another zone's key":    second(audit.Countersigned(note, line, other.zonePublic, []string{l.public})),
		"another zone's line":   second(audit.Countersigned(note, foreign, l.zonePublic, []string{l.public})),
		"two lines":             second(audit.Countersigned(note, line+line, l.zonePublic, []string{l.public})),
		"no line":               second(audit.Countersigned(note, "", l.zonePublic, []string{l.public})),
		"a line in the note":    second(audit.Countersigned(note+line, line, l.zonePublic, []string{l.public})),
		"the log's own line":    second(audit.Countersigned(note, note[strings.Index(note, "—"):], l.zonePublic, []string{l.public})),
		"a time that was moved": second(audit.Countersigned(note, later(t, line), l.zonePublic, []string{l.public})),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

func second(_ audit.Checkpoint, err error) error { return err }

// later is a line whose time is a second later than what was signed.
func later(t *testing.T, line string) string {
	t.Helper()
	head, text, _ := strings.Cut(strings.TrimPrefix(line, "— "), " ")
	b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	b[11]++
	return "— " + head + " " + base64.StdEncoding.EncodeToString(b) + "\n"
}

// at is the log's state at a size, and a note of it.
func (l *log) at(t testing.TB, size int) (audit.Checkpoint, string) {
	t.Helper()
	c := audit.Checkpoint{Origin: audit.Origin("naru.test"), Size: uint64(size), Root: l.root(t, size), Epoch: l.epoch, Time: start}
	note, err := audit.Sign(c, l.private)
	if err != nil {
		t.Fatal(err)
	}
	return c, note
}

// offer shows the log at a size to who has seen it at another; 0: without proof.
func (l *log) offer(t testing.TB, size, after int) audit.Offer {
	t.Helper()
	o := audit.Offer{Keys: []string{l.public}, After: uint64(after)}
	_, o.Note = l.at(t, size)
	if after > 0 && after <= size {
		var err error
		if o.Proof, err = tlog.ProveTree(int64(size), int64(after), l); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// seen is what somebody remembers who has countersigned the log at some sizes.
func (l *log) seen(t testing.TB, sizes ...int) (s audit.Seen) {
	t.Helper()
	s.Keys = []string{l.public}
	for i, size := range sizes {
		c, _ := l.at(t, size)
		if i == len(sizes)-1 {
			s.Newest = c
		} else {
			s.Earlier = append(s.Earlier, c)
		}
	}
	return s
}

// copied is a log with the first entries of another, which goes on by itself.
func (l *log) copied(t testing.TB, entries int) *log {
	t.Helper()
	c := &log{private: l.private, public: l.public, zoneSeed: l.zoneSeed, zonePublic: l.zonePublic, pieceSize: l.pieceSize, epoch: l.epoch}
	for n := range entries {
		c.append(t, proto.CloneOf(l.entries[n]))
	}
	return c
}

func reason(err error) string {
	var o *audit.Objection
	if errors.As(err, &o) {
		return o.Reason
	}
	return ""
}

func TestWhatLeadsOnFromWhatWasSeenIsCountersigned(t *testing.T) {
	l := grown(t, 20)
	for size := 1; size <= 20; size++ {
		if c, v, _, err := audit.Judge(audit.Seen{}, l.offer(t, size, 0)); err != nil || v != audit.Follows || c.Size != uint64(size) {
			t.Fatalf("the first, of %d: %v, %v", size, v, err)
		}
		for was := 1; was <= size; was++ {
			want := audit.Follows
			if was == size {
				want = audit.Known
			}
			if _, v, _, err := audit.Judge(l.seen(t, was), l.offer(t, size, was)); err != nil || v != want {
				t.Fatalf("%d after %d: %v, %v", size, was, v, err)
			}
			if was > 1 && was < size {
				if _, v, from, err := audit.Judge(l.seen(t, was), l.offer(t, size, was-1)); err != nil || v != audit.Unproven || from.Size != uint64(was) {
					t.Fatalf("%d after %d, with a proof from %d: %v from %d, %v", size, was, was-1, v, from.Size, err)
				}
			}
		}
	}
}

// TestP8AForkOrARollbackIsNotCountersigned: whoever holds the log's key, and forks the log before its end or cuts it short, gets no
// countersignature of who has seen more, whatever proof they show.
func TestP8AForkOrARollbackIsNotCountersigned(t *testing.T) {
	l := grown(t, 40)
	rapid.Check(t, func(r *rapid.T) {
		was := rapid.IntRange(1, 40).Draw(r, "was")
		at := rapid.IntRange(0, was-1).Draw(r, "fork")
		fork := l.copied(t, at)
		size := rapid.IntRange(at+1, 60).Draw(r, "size")
		for n := at; n < size; n++ {
			fork.append(t, entry(n+1000))
		}
		after := rapid.SampledFrom([]int{0, was, rapid.IntRange(1, size).Draw(r, "elsewhere")}).Draw(r, "after")
		o := fork.offer(t, size, min(after, size))
		o.After = uint64(after)
		if rapid.Bool().Draw(r, "the true log's proof") && was < 40 {
			o.Proof, _ = tlog.ProveTree(40, int64(was), l)
		}
		switch _, v, _, err := audit.Judge(l.seen(t, was), o); {
		case err == nil && v != audit.Unproven:
			r.Fatalf("it is %v", v)
		case err == nil && (after == was || size <= was):
			r.Fatal("it is only asked for a proof")
		case err != nil && size < was && reason(err) != audit.Rollback, err != nil && size >= was && reason(err) != audit.Fork:
			r.Fatalf("the objection is %v", err)
		}
	})
}

func TestAnotherKeyAnotherLogAndAnOldEpochAreObjectedTo(t *testing.T) {
	l, other := grown(t, 20), grown(t, 20)
	seen := l.seen(t, 10)
	unsigned, replaced, foreign := l.offer(t, 12, 10), other.offer(t, 12, 10), l.offer(t, 12, 10)
	unsigned.Note = strings.Replace(unsigned.Note, "\n12\n", "\n13\n", 1)
	note := audit.Checkpoint{Origin: audit.Origin("naru.other"), Size: 12, Root: l.root(t, 12), Epoch: 7, Time: start}
	private, public, err := audit.NewKey(note.Origin)
	if err != nil {
		t.Fatal(err)
	}
	if foreign.Note, err = audit.Sign(note, private); err != nil {
		t.Fatal(err)
	}
	foreign.Keys = []string{l.public, public}
	past := *l
	past.epoch = 6
	keyless := l.offer(t, 12, 10)
	keyless.Keys = nil
	for _, c := range []struct {
		what   string
		offer  audit.Offer
		reason string
	}{
		{"a note that was changed", unsigned, audit.Signature}, {"no key", keyless, audit.Signature}, {"another key", replaced, audit.WrongKey},
		{"another log", foreign, audit.WrongKey}, {"an earlier epoch", past.offer(t, 12, 10), audit.Rollback},
	} {
		if _, _, _, err := audit.Judge(seen, c.offer); reason(err) != c.reason {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	// A key that follows on the one that is known is taken.
	l.private, public, err = audit.NewKey(audit.Origin("naru.test"))
	if err != nil {
		t.Fatal(err)
	}
	next := l.offer(t, 12, 10)
	next.Keys = []string{l.public, public}
	if _, v, _, err := audit.Judge(seen, next); err != nil || v != audit.Follows {
		t.Errorf("the next key: %v, %v", v, err)
	}
}

// restored is a log that goes on behind the first entries of another, in the next epoch, and says so.
func restored(t testing.TB, l *log, entries, more int) *log {
	t.Helper()
	c := l.copied(t, entries)
	c.epoch = l.epoch + 1
	begun := entry(entries)
	begun.Action, begun.Target = "epoch.begin", nil
	c.append(t, begun)
	for n := range more {
		c.append(t, entry(2000+n))
	}
	return c
}

// admitted is an offer with the proof that the log says that it was restored.
func (l *log) admitted(t testing.TB, size, after, begun int) audit.Offer {
	t.Helper()
	o := l.offer(t, size, after)
	o.Begun = l.leaves[begun]
	var err error
	if o.BegunProof, err = tlog.ProveRecord(int64(size), int64(begun), l); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestARestoreThatLostWhatWasSeenIsCountersignedOnlyWhereTheLogSaysSo, and leads on from what was seen before it.
func TestARestoreThatLostWhatWasSeenIsCountersignedOnlyWhereTheLogSaysSo(t *testing.T) {
	l := grown(t, 40)
	seen := l.seen(t, 4, 12, 20, 30)
	r := restored(t, l, 16, 30) // shorter than what was seen at 17 to 29, longer from 31 on
	for _, size := range []int{17, 25, 30, 40} {
		if _, v, from, err := audit.Judge(seen, r.offer(t, size, 10)); err != nil || v != audit.Unproven || from.Size != 30 {
			t.Errorf("%d entries that nobody has said to be restored: %v from %d, %v", size, v, from.Size, err)
		}
		if _, v, from, err := audit.Judge(seen, r.admitted(t, size, 10, 16)); err != nil || v != audit.Unproven || from.Size != 12 {
			t.Errorf("%d entries, with a proof from elsewhere: %v from %d, %v", size, v, from.Size, err)
		}
		if c, v, _, err := audit.Judge(seen, r.admitted(t, size, 12, 16)); err != nil || v != audit.Restored || c.Size != uint64(size) {
			t.Errorf("%d entries: %v, %v", size, v, err)
		}
	}
	if _, v, _, err := audit.Judge(l.seen(t, 30), r.admitted(t, 40, 0, 16)); err != nil || v != audit.Restored {
		t.Errorf("who has seen nothing before the backup: %v, %v", v, err)
	}
	whole := restored(t, l, 35, 2) // nothing that was seen is lost
	if _, v, _, err := audit.Judge(seen, whole.offer(t, 38, 30)); err != nil || v != audit.Follows {
		t.Errorf("a restore that lost nothing: %v, %v", v, err)
	}

	same := restored(t, l, 16, 30)
	same.epoch = l.epoch
	rewritten := restored(t, grownFrom(t, l, 5), 16, 30)
	silent := restored(t, l, 16, 30)
	elsewhere := silent.admitted(t, 40, 12, 16)
	elsewhere.Begun = append([]byte(nil), elsewhere.Begun...)
	elsewhere.Begun[len(elsewhere.Begun)-1] ^= 1
	other := silent.admitted(t, 40, 12, 17) // an entry that is no beginning
	for what, o := range map[string]audit.Offer{
		"the same epoch, shorter":            same.admitted(t, 25, 12, 16),
		"the same epoch, longer":             same.admitted(t, 40, 30, 16),
		"what stood before the backup":       rewritten.admitted(t, 40, 12, 16),
		"a beginning that is not in the log": elsewhere,
		"an entry that begins nothing":       other,
		"a restore with all that was seen":   restored(t, grownFrom(t, l, 5), 33, 5).admitted(t, 38, 30, 33),
	} {
		if _, v, _, err := audit.Judge(seen, o); reason(err) != audit.Fork && reason(err) != audit.Rollback {
			t.Errorf("%s: %v, %v", what, v, err)
		}
	}
}

// grownFrom is a log like another, with one entry changed.
func grownFrom(t testing.TB, l *log, changed int) *log {
	t.Helper()
	c := l.copied(t, 0)
	for n := range l.entries {
		e := entry(n)
		if n == changed {
			e.Actor = "user:nobody"
		}
		c.append(t, e)
	}
	return c
}

func TestWhatIsRememberedGrowsWithTheLogarithm(t *testing.T) {
	var sizes []uint64
	for size := uint64(1); size < 100_000; size++ {
		keep := audit.Thin(append(sizes, size), size+1)
		var next []uint64
		for i, s := range append(sizes, size) {
			if keep[i] {
				next = append(next, s)
			}
		}
		sizes = next
	}
	if len(sizes) > 20 || sizes[0] != 1 || sizes[len(sizes)-1] != 99_999 {
		t.Errorf("%d are remembered: %v", len(sizes), sizes)
	}
	for i := 2; i < len(sizes); i++ {
		if back := 100_000 - sizes[i]; 100_000-sizes[i-1] > 8*back {
			t.Errorf("between %d and %d nothing is remembered", sizes[i-1], sizes[i])
		}
	}
}
