package audit

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Trust is what whoever verifies knows from elsewhere.
type Trust struct {
	// Zone, where set, is of whom the export is a log of its own; of another log it is not.
	Zone string
	// Keys are public keys that were kept: the log's own, each of which has to have signed something, and zones', which also check the
	// logs that those keep themselves. Without the log's own, the one in the export is believed, and then the export proves only that
	// it is whole.
	Keys []string
	// Witnesses is how many zones, of those whose keys were kept, have to have countersigned a checkpoint that is at most Lag older
	// than the newest; Named are zones that have to be among them.
	Witnesses int
	Named     []string
	Lag       time.Duration
	// Known are notes that were kept from before; the export has to hold what they say. They are checked with all keys.
	Known []string
	// Seals, where set, are what a verified export of the control plane's log tells of logs of zones; the export has to be of one of them,
	// and to hold what they say.
	Seals Seals
}

// Fault says what is wrong with an export, and where.
type Fault struct {
	// From and To are the entries among which it is: From <= entry < To. Equal, where it is not in an entry.
	From, To uint64
	What     string
}

func (f *Fault) Error() string {
	switch {
	case f.From+1 == f.To:
		return fmt.Sprintf("entry %d: %s", f.From, f.What)
	case f.From < f.To:
		return fmt.Sprintf("entries %d to %d: %s", f.From, f.To-1, f.What)
	}
	return fmt.Sprintf("at entry %d: %s", f.From, f.What)
}

// Report is what a verified export proves.
type Report struct {
	// Entries From <= n < To.
	From, To    uint64
	Checkpoints int
	// Newest is the checkpoint with which it ends.
	Newest Checkpoint
	// Pinned: the log's own key was known from elsewhere. Keys are those that it was checked with.
	Pinned bool
	Keys   []string
	// Witnesses are the other signers by name, each with the size up to which it has signed.
	Witnesses map[string]uint64
	// Known is how many notes of before the export bears out; Unproved are sizes of those that end before it begins.
	Known    int
	Unproved []uint64
	// Lost are states of earlier epochs that zones have countersigned and the log does not hold: an older backup was restored.
	Lost []Lost
	// Seals are what it tells, where it is the control plane's, of logs that zones have kept themselves; Sealed is up to which size the
	// control plane's log (Trust.Seals) tells of this one.
	Seals  Seals
	Sealed uint64
}

// Lost is a state that a log no longer holds, and who has countersigned it.
type Lost struct {
	Checkpoint
	By []string
}

// ErrNoExport is of what does not begin as an export of an audit log: another file was named, or its first bytes were changed.
var ErrNoExport = errors.New("it does not begin as an export of an audit log")

// Verify reads an export to its end. The error is a *Fault where the export was read and is not what was signed, and ErrNoExport where it
// is none.
func Verify(r io.Reader, t Trust) (*Report, error) {
	in, err := readPieces(r)
	if err != nil {
		return nil, err
	}
	first, err := in.next()
	if err != nil || first.GetExport() == nil || len(first.GetLeaves())+len(first.GetHashes())+len(first.GetCheckpoints()) > 0 {
		return nil, &Fault{What: "the export does not begin with what it is"}
	}
	v := &verifier{trust: t}
	if err := v.begin(first.GetExport()); err != nil {
		return nil, err
	}
	for {
		piece, err := in.next()
		if err == io.EOF {
			return v.end()
		}
		if err != nil {
			return nil, v.fault("%v", err)
		}
		if err := v.piece(piece); err != nil {
			return nil, err
		}
	}
}

type verifier struct {
	trust  Trust
	report Report
	// keys check signatures; those of the export where they are not known from elsewhere.
	keys []string
	// pinned are the names of those that are known.
	pinned map[string]bool
	known  []Checkpoint
	// size is how many entries the tree has, edge its hashes along the right edge by level; checked is the size of the newest
	// checkpoint that fits, to the size that the export says to end with.
	size, checked, to uint64
	edge              [64]tlog.Hash
	last              time.Time
	// back is the first entry that is older than the one before it: in the control plane's log there is none. A zone's clock may go back.
	back      *Fault
	met       map[tlog.Hash]bool   // of what the control plane's log tells
	signed    map[string]bool      // by key
	witnessed map[string]time.Time // of the newest checkpoint that was countersigned, by key
	lost      []Lost
}

func (v *verifier) fault(what string, args ...any) *Fault {
	return &Fault{v.size, v.size, fmt.Sprintf(what, args...)}
}

func decimal(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	if err == nil && strconv.FormatUint(n, 10) != s {
		err = errors.New("not decimal")
	}
	return n, err
}

// nameOf is the name in a public key.
func nameOf(key string) string {
	name, _, _ := strings.Cut(key, "+")
	return name
}

func (v *verifier) begin(e *apiv1.AuditExport) error {
	from, err := decimal(e.GetFrom())
	count, countErr := decimal(e.GetCount())
	if err != nil || countErr != nil || bits.OnesCount64(from) != len(e.GetBefore()) {
		return &Fault{What: "the export does not say where it begins and ends"}
	}
	v.size, v.checked, v.to = from, from, from+count
	v.report.From, v.report.To, v.report.Witnesses = from, v.to, map[string]uint64{}
	v.signed, v.witnessed, v.met, v.report.Seals = map[string]bool{}, map[string]time.Time{}, map[tlog.Hash]bool{}, Seals{}
	if err := v.before(e.GetBefore()); err != nil {
		return err
	}
	if err := v.takeKeys(e.GetKeys()); err != nil {
		return err
	}
	for _, note := range v.trust.Known {
		c, _, err := Open(note, v.keys)
		if err != nil {
			return fmt.Errorf("a checkpoint that was kept cannot be read: %w", err)
		}
		v.report.Pinned = v.report.Pinned || v.pinned[c.Origin]
		if c.Size < from {
			v.report.Unproved = append(v.report.Unproved, c.Size)
			continue
		}
		if c.Size > v.to {
			return &Fault{v.to, c.Size, fmt.Sprintf("the export ends before them, and they were signed at %s", c.Time.Format(time.RFC3339))}
		}
		v.known = append(v.known, c)
	}
	for _, note := range e.GetLost() {
		c, signers, err := Open(note, v.keys)
		if err != nil || len(signers) < 2 {
			return &Fault{What: "a checkpoint that is said to be lost is not signed and countersigned as it should be"}
		}
		v.lost = append(v.lost, Lost{c, slices.DeleteFunc(signers, func(name string) bool { return name == c.Origin })})
	}
	slices.SortFunc(v.known, func(a, b Checkpoint) int { return int(int64(a.Size) - int64(b.Size)) })
	return v.borneOut()
}

// before takes the roots of what stood before the export.
func (v *verifier) before(roots [][]byte) error {
	next := 0
	for level := 63; level >= 0; level-- {
		if v.size>>level&1 == 0 {
			continue
		}
		if len(roots[next]) != tlog.HashSize {
			return &Fault{What: "what stood before the export is not told by hashes"}
		}
		v.edge[level] = tlog.Hash(roots[next])
		next++
	}
	return nil
}

// takeKeys takes the keys of the export, of which those of a name that is known from elsewhere are not believed.
func (v *verifier) takeKeys(told []string) error {
	v.keys = slices.Clone(v.trust.Keys)
	for _, origin := range told {
		for _, k := range v.trust.Keys { // who countersigns also signs a log of its own
			if own, err := LocalKey(nameOf(origin), k); err == nil && !slices.Contains(v.keys, own) {
				v.keys = append(v.keys, own)
			}
		}
	}
	v.pinned = map[string]bool{}
	for _, k := range v.keys {
		v.pinned[nameOf(k)] = true
	}
	for _, k := range told {
		if !v.pinned[nameOf(k)] && !slices.Contains(v.keys, k) {
			v.keys = append(v.keys, k)
		} else if !slices.Contains(v.keys, k) {
			return &Fault{What: "the export names a key for " + nameOf(k) + " that is not the one that was kept; if it was replaced, keep the new one as well"}
		}
	}
	return nil
}

func (v *verifier) piece(p *apiv1.ExportAuditResponse) error {
	if p.GetExport() != nil || len(p.GetLeaves()) != len(p.GetHashes()) {
		return v.fault("a piece is not one of an export")
	}
	checkpoints := p.GetCheckpoints()
	for i, leaf := range p.GetLeaves() {
		if err := v.leaf(leaf, p.GetHashes()[i]); err != nil {
			return err
		}
		for len(checkpoints) > 0 && checkpoints[0].GetSize() == strconv.FormatUint(v.size, 10) {
			if err := v.checkpoint(checkpoints[0]); err != nil {
				return err
			}
			checkpoints = checkpoints[1:]
		}
	}
	if len(checkpoints) > 0 {
		return v.fault("a checkpoint of size %q stands where entry %d was read last", checkpoints[0].GetSize(), v.size)
	}
	return nil
}

// leaf takes the next entry in.
func (v *verifier) leaf(leaf, hash []byte) error {
	at := &Fault{From: v.size, To: v.size + 1}
	if h := tlog.RecordHash(leaf); string(h[:]) != string(hash) {
		at.What = "it was changed: its bytes are not those of its hash"
		return at
	}
	e, err := ReadLeaf(leaf)
	if err != nil {
		at.What = err.Error()
		return at
	}
	if e.GetSequence() != strconv.FormatUint(v.size, 10) {
		at.What = fmt.Sprintf("entry %s stands in its place: entries are missing, or were moved", e.GetSequence())
		return at
	}
	if e.GetTime().AsTime().Before(v.last) && v.back == nil {
		at.What = "it is said to be older than the one before it"
		v.back = at
	}
	v.last = e.GetTime().AsTime()
	completed, err := tlog.StoredHashesForRecordHash(int64(v.size), tlog.RecordHash(leaf), v.edges())
	if err != nil {
		return err
	}
	v.edge[len(completed)-1] = completed[len(completed)-1]
	v.size++
	v.report.Seals.note(e)
	if err := v.sealed(); err != nil {
		return err
	}
	return v.borneOut()
}

// edges reads the tree's hashes along its right edge, which are all that growing it and its root need.
func (v *verifier) edges() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, _ := tlog.SplitStoredHashIndex(index)
			out[i] = v.edge[level]
		}
		return out, nil
	})
}

// borneOut compares the tree with the checkpoints that are known of its size.
func (v *verifier) borneOut() error {
	for len(v.known) > 0 && v.known[0].Size == v.size {
		root, err := tlog.TreeHash(int64(v.size), v.edges())
		if err != nil {
			return err
		}
		if root != v.known[0].Root {
			return &Fault{v.checked, v.size, "they are not those that were signed before: the log is another one from there on (a fork)"}
		}
		v.report.Known++
		v.known = v.known[1:]
	}
	for _, l := range v.lost {
		if l.Size != v.size {
			continue
		}
		root, err := tlog.TreeHash(int64(v.size), v.edges())
		if err != nil {
			return err
		}
		if root == l.Root {
			return v.fault("a checkpoint of this size that is said to be lost is not")
		}
	}
	return nil
}

// checkpoint compares the tree with what was signed of its size.
func (v *verifier) checkpoint(c *apiv1.AuditCheckpoint) error {
	signed, signers, err := Open(c.GetNote(), v.keys)
	if err != nil {
		return v.fault("the checkpoint there is not signed as it should be: %v", err)
	}
	if signed.Size != v.size || string(signed.Root[:]) != string(c.GetRoot()) || !signed.Time.Equal(c.GetTime().AsTime()) {
		return v.fault("the checkpoint there says another thing than what was signed")
	}
	if v.report.Checkpoints > 0 && signed.Origin != v.report.Newest.Origin {
		return v.fault("the checkpoint there is of another log, %s", signed.Origin)
	}
	zone, _ := ParseLocalOrigin(signed.Origin)
	if v.back != nil && zone == "" {
		return v.back
	}
	root, err := tlog.TreeHash(int64(v.size), v.edges())
	if err != nil {
		return err
	}
	if root != signed.Root {
		return &Fault{v.checked, v.size, "they are not those that were signed"}
	}
	v.checked, v.report.Newest = v.size, signed
	v.report.Checkpoints++
	for _, name := range signers {
		v.signed[name] = true
		if name != signed.Origin {
			v.report.Witnesses[name], v.witnessed[name] = v.size, signed.Time
		}
	}
	return nil
}

func (v *verifier) end() (*Report, error) {
	switch {
	case v.size != v.to:
		return nil, &Fault{v.size, max(v.to, v.size), "they are missing: the export is cut off, or goes on behind its end"}
	case v.checked != v.size || v.report.Checkpoints == 0:
		return nil, &Fault{v.checked, v.size, "no checkpoint covers them"}
	}
	origin := v.report.Newest.Origin
	zone, life := ParseLocalOrigin(origin)
	v.report.Pinned = v.report.Pinned || v.pinned[origin]
	if v.trust.Zone != "" && v.trust.Zone != zone {
		return nil, v.fault("it is the log %s, and not one that zone %s has kept itself", origin, v.trust.Zone)
	}
	if v.trust.Zone != "" && len(v.trust.Keys) > 0 && !v.report.Pinned {
		return nil, v.fault("the log %s is signed with none of the keys that were kept", origin)
	}
	if zone != "" {
		v.report.Seals = nil // what a zone says of other logs is nothing
	}
	if err := v.unsealed(life); err != nil {
		return nil, err
	}
	var kept []string // zones whose keys were
	for _, k := range v.trust.Keys {
		switch name := nameOf(k); {
		case ZoneOf(name) != "":
			kept = append(kept, name)
		case v.signed[name], v.trust.Zone != "":
		case zone != "":
			return nil, v.fault("%s, whose key was kept, has signed nothing in it: it is a log that zone %s has kept itself, and is to be verified as that", name, zone)
		default:
			return nil, v.fault("%s, whose key was kept, has signed nothing in it", name)
		}
	}
	v.report.Keys = v.keys
	if err := v.countersigned(slices.Compact(slices.Sorted(slices.Values(kept)))); err != nil {
		return nil, err
	}
	for _, l := range v.lost {
		if l.Epoch >= v.report.Newest.Epoch {
			return nil, v.fault("%s has countersigned another log of the same epoch, with %d entries: the log was forked", strings.Join(l.By, ", "), l.Size)
		}
	}
	v.report.Lost = v.lost
	return &v.report, nil
}

// countersigned checks that as many zones as are asked for, of those whose keys were kept, have seen nearly all of it.
func (v *verifier) countersigned(kept []string) error {
	var fresh []string
	upTo := v.report.From // nobody has countersigned more
	for _, name := range kept {
		upTo = max(upTo, v.report.Witnesses[name])
		if at, ok := v.witnessed[name]; ok && v.report.Newest.Time.Sub(at) <= v.trust.Lag {
			fresh = append(fresh, name)
		}
	}
	for _, zone := range v.trust.Named {
		if !slices.ContainsFunc(fresh, func(name string) bool { return ZoneOf(name) == zone }) {
			return &Fault{upTo, v.size, fmt.Sprintf("zone %s has not countersigned them, with a key that was kept", zone)}
		}
	}
	if len(fresh) < v.trust.Witnesses {
		return &Fault{upTo, v.size, fmt.Sprintf("%d zones have to have countersigned them, with keys that were kept, and %d have: %s",
			v.trust.Witnesses, len(fresh), cmp.Or(strings.Join(fresh, ", "), "none"))}
	}
	return nil
}
