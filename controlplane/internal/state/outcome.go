package state

import (
	"encoding/binary"

	"zombiezen.com/go/sqlite"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Outcome is what a command came to. It is kept so that a command carried twice has its effect once.
type Outcome struct {
	// ID is the command's, a UUIDv7 of 16 bytes.
	ID []byte
	// Key and RequestHash are set for a write that a client made with an idempotency key and that was accepted.
	Actor, Key  string
	RequestHash []byte
	Result      *commandv1.Result
}

const outcomeFields = "SELECT message, crc, id, actor, idempotency_key, request_hash FROM outcomes WHERE "

// Outcome returns what the command with the id came to. Errors: ErrNotFound.
func (tx *Tx) Outcome(id []byte) (*Outcome, error) { return tx.outcome(outcomeFields+"id=?", id) }

// OutcomeByKey returns what an actor's request with the idempotency key came to. Errors: ErrNotFound.
func (tx *Tx) OutcomeByKey(actor, key string) (*Outcome, error) {
	return tx.outcome(outcomeFields+"actor=? AND idempotency_key=? AND idempotency_key<>'' ORDER BY id LIMIT 1", actor, key)
}

func (tx *Tx) outcome(sql string, args ...any) (*Outcome, error) {
	o := &Outcome{Result: &commandv1.Result{}}
	err := tx.first(sql, func(s *sqlite.Stmt) error {
		o.ID, o.Actor, o.Key, o.RequestHash = columnBytes(s, 2), s.ColumnText(3), s.ColumnText(4), columnBytes(s, 5)
		return decodeInto(s, o.Result, "outcomes")
	}, args...)
	return o, err
}

// PutOutcome keeps what a command came to.
func (tx *Tx) PutOutcome(o *Outcome) error {
	b, err := encode(o.Result)
	if err != nil {
		return err
	}
	return tx.write("INSERT INTO outcomes (id, actor, idempotency_key, request_hash, crc, message) VALUES (?, ?, ?, ?, ?, ?)",
		o.ID, o.Actor, o.Key, o.RequestHash, checksum(b), b)
}

// ForgetKeys forgets the idempotency keys of actors that are gone: a user, with the tokens that they have now, or a token.
func (tx *Tx) ForgetKeys(actorID string) error {
	return tx.write(`UPDATE outcomes SET idempotency_key='', request_hash=x'' WHERE idempotency_key<>''
		AND (actor=?1 OR actor IN (SELECT id FROM access_tokens WHERE user_id=?1 AND user_id<>''))`, actorID)
}

// HasOutcomes reports whether there is an outcome of a command that was made before the time in microseconds.
func (tx *Tx) HasOutcomes(before int64) (has bool, err error) {
	err = tx.query("SELECT 1 FROM outcomes WHERE id<? LIMIT 1", func(*sqlite.Stmt) error {
		has = true
		return nil
	}, idBound(before))
	return has, err
}

// idBound is below each UUIDv7 that was made at the time in microseconds or later.
func idBound(at int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(max(at, 0)/1000)<<16) }

// ForgetOutcomes removes up to limit outcomes of commands that were made before the time in microseconds, as their ids
// tell: a UUIDv7 begins with the milliseconds since 1970.
func (tx *Tx) ForgetOutcomes(before int64, limit int) error {
	if before <= 0 {
		return nil
	}
	return tx.write("DELETE FROM outcomes WHERE id IN (SELECT id FROM outcomes WHERE id<? ORDER BY id"+atMost+")", idBound(before), limit)
}
