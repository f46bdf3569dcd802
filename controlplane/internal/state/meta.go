package state

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
)

// Meta is what there is one of.
type Meta struct {
	// Federation is the trust domain; empty until the federation has been bootstrapped.
	Federation string
	Epoch      uint64
	EpochID    []byte
	// EpochBegan is the revision at which the epoch began. Higher revisions of another epoch belong to a lost future.
	EpochBegan uint64
	// Revision counts applied commands. It goes on through a restore, where a Raft index begins anew.
	Revision     uint64
	FeatureLevel uint32
	// LastStamp is the latest time any command carried, in microseconds.
	LastStamp time.Time
	// AppliedIndex and AppliedTerm are the Raft log's; they belong to this server's log, not to the replicated content.
	AppliedIndex, AppliedTerm uint64
}

// Text returns the current revision as nouns, ETags and watches carry it.
func (m Meta) Text() string { return RevisionText(m.Epoch, m.Revision) }

// RevisionText returns "EPOCH-REVISION".
func RevisionText(epoch, revision uint64) string {
	b := make([]byte, 0, 24)
	b = strconv.AppendUint(b, epoch, 10)
	b = append(b, '-')
	return string(strconv.AppendUint(b, revision, 10))
}

// ParseRevision is the inverse of RevisionText.
func ParseRevision(text string) (epoch, revision uint64, err error) {
	e, r, ok := strings.Cut(text, "-")
	if ok {
		epoch, err = strconv.ParseUint(e, 10, 63)
	}
	if ok && err == nil {
		revision, err = strconv.ParseUint(r, 10, 63)
	}
	if !ok || err != nil {
		return 0, 0, fmt.Errorf("revision %q is not of the form EPOCH-REVISION", text)
	}
	return epoch, revision, nil
}

// After returns the revision after which a watch that stands at text goes on: ErrCompacted when text belongs to a future
// that a restore has undone.
func (m Meta) After(text string) (uint64, error) {
	epoch, revision, err := ParseRevision(text)
	switch {
	case err != nil:
		return 0, err
	case epoch > m.Epoch, epoch < m.Epoch && revision > m.EpochBegan, revision > m.Revision:
		return 0, ErrCompacted
	}
	return revision, nil
}

const metaTable = `CREATE TABLE meta (
	one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), federation TEXT NOT NULL, epoch INTEGER NOT NULL,
	epoch_id BLOB NOT NULL, epoch_began INTEGER NOT NULL, revision INTEGER NOT NULL, feature_level INTEGER NOT NULL,
	last_stamp INTEGER NOT NULL) WITHOUT ROWID, STRICT`

// What is this server's own stands apart from what is replicated, and is in no snapshot's content.
const localTable = `CREATE TABLE local (
	one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), server_id TEXT NOT NULL, applied_index INTEGER NOT NULL,
	applied_term INTEGER NOT NULL) WITHOUT ROWID, STRICT`

// Meta returns the state's numbers as this transaction sees them.
func (tx *Tx) Meta() Meta { return tx.meta }

// SetMeta replaces the state's numbers; they are stored when the transaction commits.
func (tx *Tx) SetMeta(m Meta) { tx.meta = m }

func (tx *Tx) loadMeta() error {
	err := tx.query(`SELECT federation, epoch, epoch_id, epoch_began, revision, feature_level, last_stamp FROM meta`, func(s *sqlite.Stmt) error {
		tx.meta = Meta{
			Federation: s.ColumnText(0), Epoch: uint64(s.ColumnInt64(1)), EpochID: columnBytes(s, 2),
			EpochBegan: uint64(s.ColumnInt64(3)), Revision: uint64(s.ColumnInt64(4)), FeatureLevel: uint32(s.ColumnInt64(5)),
			LastStamp: time.UnixMicro(s.ColumnInt64(6)).UTC(),
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tx.query(`SELECT applied_index, applied_term FROM local`, func(s *sqlite.Stmt) error {
		tx.meta.AppliedIndex, tx.meta.AppliedTerm = uint64(s.ColumnInt64(0)), uint64(s.ColumnInt64(1))
		return nil
	})
}

func (tx *Tx) storeMeta() error {
	m := tx.meta
	err := tx.exec(`UPDATE meta SET federation=?, epoch=?, epoch_id=?, epoch_began=?, revision=?, feature_level=?, last_stamp=?`,
		m.Federation, m.Epoch, m.EpochID, m.EpochBegan, m.Revision, m.FeatureLevel, m.LastStamp.UnixMicro())
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE local SET applied_index=?, applied_term=?`, m.AppliedIndex, m.AppliedTerm)
}
