package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// keepCheckpoints is how many of the newest checkpoints are all kept; of older ones the last of each hour is.
const keepCheckpoints = 1000

const hour = 3600 * 1_000_000 // microseconds

// Checkpoint returns the newest checkpoint of the audit log. Errors: ErrNotFound.
func (tx *Tx) Checkpoint() (*apiv1.AuditCheckpoint, error) {
	c := &apiv1.AuditCheckpoint{}
	return c, tx.first("SELECT message, crc FROM audit_checkpoints ORDER BY size DESC LIMIT 1", func(s *sqlite.Stmt) error {
		return decodeInto(s, c, "audit_checkpoints")
	})
}

// CheckpointOf returns the checkpoint of a size. Errors: ErrNotFound.
func (tx *Tx) CheckpointOf(size uint64) (*apiv1.AuditCheckpoint, error) {
	c := &apiv1.AuditCheckpoint{}
	return c, tx.first("SELECT message, crc FROM audit_checkpoints WHERE size=?", func(s *sqlite.Stmt) error {
		return decodeInto(s, c, "audit_checkpoints")
	}, size)
}

// Checkpoints returns up to limit checkpoints of sizes above after, in order.
func (tx *Tx) Checkpoints(after uint64, limit int) (all []*apiv1.AuditCheckpoint, err error) {
	err = tx.query("SELECT message, crc FROM audit_checkpoints WHERE size>? ORDER BY size"+atMost, func(s *sqlite.Stmt) error {
		c := &apiv1.AuditCheckpoint{}
		all = append(all, c)
		return decodeInto(s, c, "audit_checkpoints")
	}, after, limit)
	return all, err
}

// PutCheckpoint stores a checkpoint, and thins out the old ones.
func (tx *Tx) PutCheckpoint(size uint64, c *apiv1.AuditCheckpoint) error {
	b, err := encode(c)
	if err != nil {
		return err
	}
	tx.touch(TopicCheckpoints)
	err = tx.write(`INSERT INTO audit_checkpoints (size, time, crc, message) VALUES (?, ?, ?, ?)
		ON CONFLICT (size) DO UPDATE SET time=excluded.time, crc=excluded.crc, message=excluded.message`, size, Micros(c.GetTime()), checksum(b), b)
	if err != nil {
		return err
	}
	// Of the first that is beyond those that are kept and the one behind it.
	var sizes, times []int64
	err = tx.query("SELECT size, time FROM audit_checkpoints ORDER BY size DESC LIMIT 2 OFFSET +?", func(s *sqlite.Stmt) error {
		sizes, times = append(sizes, s.ColumnInt64(0)), append(times, s.ColumnInt64(1))
		return nil
	}, keepCheckpoints-1)
	if err != nil || len(sizes) < 2 || times[0]/hour != times[1]/hour {
		return err
	}
	return tx.write("DELETE FROM audit_checkpoints WHERE size=?", sizes[1])
}
