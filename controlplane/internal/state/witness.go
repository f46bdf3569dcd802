package state

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Witness is a zone that countersigns the audit log, and what it is shown.
type Witness struct {
	// Without what is reckoned when it is read: how far it is behind, and its objection.
	*apiv1.AuditWitness
	// Base is the size at which the proof begins that the zone is shown.
	Base uint64
	// Restored: the zone has countersigned what the log does not hold, since a backup was restored.
	Restored bool
	// Offered is the size of the checkpoint that it was shown last, OfferedAt when that was, in microseconds.
	Offered   uint64
	OfferedAt int64
}

// offerEvery is how often, in microseconds, a zone is shown a checkpoint at most.
const offerEvery = 60 * 1_000_000

// Due reports whether the zone is to be shown a checkpoint of a size now. What was shown by a clock that was ahead puts nothing off.
func (w Witness) Due(size uint64, now int64) bool {
	return w.Offered != size && (w.OfferedAt == 0 || now < w.OfferedAt || now-w.OfferedAt >= offerEvery)
}

const witnessFields = "SELECT message, crc, base, restored, offered, offered_at FROM audit_witnesses "

func witnessOf(s *sqlite.Stmt) (Witness, error) {
	w := Witness{AuditWitness: &apiv1.AuditWitness{}, Base: uint64(s.ColumnInt64(2)), Restored: s.ColumnBool(3),
		Offered: uint64(s.ColumnInt64(4)), OfferedAt: s.ColumnInt64(5)}
	return w, decodeInto(s, w.AuditWitness, "audit_witnesses")
}

// Witness returns what is known of a zone that countersigns. Errors: ErrNotFound.
func (tx *Tx) Witness(zoneID string) (w Witness, err error) {
	err = tx.first(witnessFields+"WHERE zone_id=?", func(s *sqlite.Stmt) (err error) {
		w, err = witnessOf(s)
		return err
	}, zoneID)
	return w, err
}

// Witnesses returns all that is known of zones that countersign, also of those that are gone: their keys verify what they signed.
func (tx *Tx) Witnesses() (all []Witness, err error) {
	err = tx.query(witnessFields+"ORDER BY zone_id", func(s *sqlite.Stmt) error {
		w, err := witnessOf(s)
		all = append(all, w)
		return err
	})
	slices.SortFunc(all, func(a, b Witness) int {
		return cmp.Or(cmp.Compare(a.GetZone(), b.GetZone()), cmp.Compare(a.GetZoneId(), b.GetZoneId()))
	})
	return all, err
}

// PutWitness replaces what is known of a zone that countersigns.
func (tx *Tx) PutWitness(w Witness) error {
	b, err := encode(w.AuditWitness)
	if err != nil {
		return err
	}
	return tx.write(`INSERT INTO audit_witnesses (zone_id, base, restored, offered, offered_at, crc, message) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (zone_id) DO UPDATE SET base=excluded.base, restored=excluded.restored, offered=excluded.offered,
		offered_at=excluded.offered_at, crc=excluded.crc, message=excluded.message`,
		w.GetZoneId(), w.Base, w.Restored, w.Offered, w.OfferedAt, checksum(b), b)
}

// shownCheckpoint is the id of the checkpoint that a zone is shown: there is one.
const shownCheckpoint = "audit"

// Offer has the checkpoint of a size go down to a zone, to be countersigned.
func (tx *Tx) Offer(w Witness, size uint64, now int64) error {
	w.Offered, w.OfferedAt = size, now
	if err := tx.PutWitness(w); err != nil {
		return err
	}
	tx.touchZone(TopicDesired, w.GetZoneId())
	return tx.putDesired(w.GetZoneId(), &apiv1.Reference{Kind: "checkpoint", Id: shownCheckpoint, Name: strconv.FormatUint(size, 10)}, false)
}

// shown is the checkpoint that a zone is shown, with the proof that it needs.
func (tx *Tx) shown(zoneID string, d desired) (*linkv1.Checkpoint, error) {
	size, err := strconv.ParseUint(d.name, 10, 63)
	if err != nil {
		return nil, fmt.Errorf("%w: zone %s is to be shown a checkpoint of size %q", ErrCorrupt, zoneID, d.name)
	}
	c, err := tx.CheckpointOf(size)
	if errors.Is(err, ErrNotFound) { // thinned out: the zone was away for long
		if c, err = tx.Checkpoint(); err == nil {
			size, err = strconv.ParseUint(c.GetSize(), 10, 63)
		}
	}
	if err != nil {
		return nil, err
	}
	ring, err := tx.Keyring()
	if err != nil {
		return nil, err
	}
	out := &linkv1.Checkpoint{Id: d.id, Note: ownSignature(c.GetNote()), Generation: &apiv1.Generation{Epoch: d.epoch, Index: d.revision}}
	for _, k := range ring.GetAuditKeys() {
		out.Keys = append(out.Keys, k.GetPublicKey())
	}
	w, err := tx.Witness(zoneID)
	if err != nil {
		return nil, err
	}
	if w.Base > 0 && w.Base <= size {
		proof, err := tlog.ProveTree(int64(size), int64(w.Base), tx.AuditHashes())
		if err != nil {
			return nil, err
		}
		out.After, out.Proof = w.Base, bytesOf(proof)
	}
	if w.Restored {
		out.Begun, err = tx.epochBegun(size)
	}
	return out, err
}

// ownSignature is a note with the first of its signatures, which is the log's: a zone is not told who else has signed.
func ownSignature(note string) string {
	text, signatures, _ := strings.Cut(note, "\n\n")
	own, _, _ := strings.Cut(signatures, "\n")
	return text + "\n\n" + own + "\n"
}

func bytesOf(hashes []tlog.Hash) (out [][]byte) {
	for _, h := range hashes {
		out = append(out, h[:])
	}
	return out
}

// epochBegun proves that the log, as it was at a size, holds the beginning of the newest epoch; nil where it does not.
func (tx *Tx) epochBegun(size uint64) (*linkv1.EpochBegun, error) {
	begun := uint64(0)
	err := tx.first("SELECT begun FROM audit_epochs ORDER BY epoch DESC LIMIT 1", func(s *sqlite.Stmt) error {
		begun = uint64(s.ColumnInt64(0))
		return nil
	})
	if errors.Is(err, ErrNotFound) || err == nil && begun >= size {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	leaves, err := tx.AuditLeaves(begun, 1)
	if err != nil || len(leaves) == 0 {
		return nil, err
	}
	proof, err := tlog.ProveRecord(int64(size), int64(begun), tx.AuditHashes())
	return &linkv1.EpochBegun{Leaf: leaves[0].Leaf, Proof: bytesOf(proof)}, err
}

// AuditEpochBegins notes that the next entry of the audit log is the beginning of an epoch.
func (tx *Tx) AuditEpochBegins(epoch uint64) error {
	size, err := tx.AuditSize()
	if err != nil {
		return err
	}
	return tx.write("INSERT INTO audit_epochs (epoch, begun) VALUES (?, ?)", epoch, size)
}
