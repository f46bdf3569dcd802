package audit_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strconv"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// log is an audit log in memory, with the keys of the control plane and of a zone.
type log struct {
	private, public string
	zoneSeed        []byte
	zonePublic      string
	entries         []*apiv1.AuditEntry
	stored          []tlog.Hash
	leaves          [][]byte
	checkpoints     []*apiv1.AuditCheckpoint
	pieceSize       int
	epoch           uint64
}

func newLog(t testing.TB) *log {
	t.Helper()
	l := &log{pieceSize: 7, epoch: 7}
	var err error
	if l.private, l.public, err = audit.NewKey(audit.Origin("naru.test")); err != nil {
		t.Fatal(err)
	}
	l.zoneSeed = make([]byte, audit.SeedSize)
	rand.Read(l.zoneSeed)
	l.zonePublic = audit.WitnessKey(zoneName, l.zoneSeed)
	return l
}

var zoneName = audit.WitnessName("naru.test", "business")

// grown is a log with entries, signed now and then, and at its end.
func grown(t testing.TB, entries int) *log {
	t.Helper()
	l := newLog(t)
	for n := range entries {
		l.append(t, entry(n))
		if n%23 == 11 || n == entries-1 {
			l.sign(t, true)
		}
	}
	return l
}

func entry(n int) *apiv1.AuditEntry {
	return &apiv1.AuditEntry{
		Time: timestamppb.New(start.Add(time.Duration(n) * time.Second)), Actor: fmt.Sprintf("user:u%d", n%5), Action: "vm.create",
		Target: &apiv1.Reference{Kind: "vm", Id: fmt.Sprintf("vm-%d", n), Name: fmt.Sprintf("web-%d", n)}, Outcome: apiv1.AuditEntry_DONE,
		Digest: bytes.Repeat([]byte{byte(n)}, 32),
	}
}

func (l *log) ReadHashes(indexes []int64) (out []tlog.Hash, _ error) {
	for _, i := range indexes {
		out = append(out, l.stored[i])
	}
	return out, nil
}

func (l *log) append(t testing.TB, e *apiv1.AuditEntry) {
	t.Helper()
	e.Sequence = strconv.Itoa(len(l.leaves))
	leaf, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := tlog.StoredHashes(int64(len(l.leaves)), leaf, l)
	if err != nil {
		t.Fatal(err)
	}
	l.entries, l.leaves, l.stored = append(l.entries, e), append(l.leaves, leaf), append(l.stored, hashes...)
}

func (l *log) root(t testing.TB, size int) tlog.Hash {
	t.Helper()
	root, err := tlog.TreeHash(int64(size), l)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// sign makes the log's next checkpoint.
func (l *log) sign(t testing.TB, witnessed bool) {
	t.Helper()
	size := len(l.leaves)
	c := audit.Checkpoint{Origin: audit.Origin("naru.test"), Size: uint64(size), Root: l.root(t, size), Epoch: l.epoch, Time: start.Add(time.Duration(size) * time.Second)}
	note, err := audit.Sign(c, l.private)
	if err != nil {
		t.Fatal(err)
	}
	if witnessed {
		line, err := audit.Countersign(note, zoneName, l.zoneSeed, c.Time)
		if err != nil {
			t.Fatal(err)
		}
		if note, err = audit.Attach(note, line, l.zonePublic); err != nil {
			t.Fatal(err)
		}
	}
	l.checkpoints = append(l.checkpoints, &apiv1.AuditCheckpoint{Size: strconv.Itoa(size), Root: c.Root[:], Time: timestamppb.New(c.Time), Note: note})
}

// export is the log from an entry on, in pieces.
func (l *log) export(t testing.TB, from int) []*apiv1.ExportAuditResponse {
	t.Helper()
	head := &apiv1.AuditExport{From: strconv.Itoa(from), Count: strconv.Itoa(len(l.leaves) - from), Keys: []string{l.public, l.zonePublic}}
	for level, at := 62, 0; level >= 0; level-- {
		if from>>level&1 == 1 {
			h := l.stored[tlog.StoredHashIndex(level, int64(at>>level))]
			head.Before = append(head.Before, h[:])
			at += 1 << level
		}
	}
	pieces := []*apiv1.ExportAuditResponse{{Export: head}}
	for n := from; n < len(l.leaves); n++ {
		if (n-from)%l.pieceSize == 0 {
			pieces = append(pieces, &apiv1.ExportAuditResponse{})
		}
		p := pieces[len(pieces)-1]
		h := tlog.RecordHash(l.leaves[n])
		p.Leaves, p.Hashes = append(p.Leaves, l.leaves[n]), append(p.Hashes, h[:])
		for _, c := range l.checkpoints {
			if c.GetSize() == strconv.Itoa(n+1) {
				p.Checkpoints = append(p.Checkpoints, c)
			}
		}
	}
	return pieces
}

func written(t testing.TB, pieces []*apiv1.ExportAuditResponse) []byte {
	t.Helper()
	var b bytes.Buffer
	w := audit.NewWriter(&b)
	for _, p := range pieces {
		if err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// trust is what an auditor has kept: both keys, and the newest note.
func (l *log) trust() audit.Trust {
	return audit.Trust{Keys: []string{l.public, l.zonePublic}, Known: []string{l.checkpoints[len(l.checkpoints)-1].GetNote()}}
}
