package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// localOperator is the kind of those who may log in in a zone while it is cut off, among what goes down to it; the id is the user's.
const localOperator = "local-operator"

// MaxLocalOperators of a zone can log in in it while it is cut off.
const MaxLocalOperators = 256

// LocalOperators returns who may log in in a zone while it is cut off, by id.
func (tx *Tx) LocalOperators(zoneID string) ([]*commandv1.LocalOperator, error) {
	return tx.localOperators("SELECT message, crc FROM local_operators WHERE zone_id=? ORDER BY user_id", zoneID)
}

// LocalOperatorsOf returns the zones in which a user may log in while they are cut off.
func (tx *Tx) LocalOperatorsOf(userID string) ([]*commandv1.LocalOperator, error) {
	return tx.localOperators("SELECT message, crc FROM local_operators WHERE user_id=? ORDER BY zone_id", userID)
}

func (tx *Tx) localOperators(query, id string) (all []*commandv1.LocalOperator, err error) {
	err = tx.query(query, func(s *sqlite.Stmt) error {
		m := &commandv1.LocalOperator{}
		all = append(all, m)
		return decodeInto(s, m, "local_operators")
	}, id)
	return all, err
}

// PutLocalOperator lets a user log in in a zone while it is cut off: it goes down to the zone.
func (tx *Tx) PutLocalOperator(m *commandv1.LocalOperator) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	err = tx.write(`INSERT INTO local_operators (zone_id, user_id, crc, message) VALUES (?, ?, ?, ?)
		ON CONFLICT (zone_id, user_id) DO UPDATE SET crc=excluded.crc, message=excluded.message`, m.GetZoneId(), m.GetUserId(), checksum(b), b)
	if err != nil {
		return err
	}
	tx.touchZone(TopicDesired, m.GetZoneId())
	return tx.putDesired(m.GetZoneId(), &apiv1.Reference{Kind: localOperator, Id: m.GetUserId()}, false)
}

// DropLocalOperator lets a user log in there no more: a tombstone goes down to the zone.
func (tx *Tx) DropLocalOperator(zoneID, userID string) error {
	if err := tx.write("DELETE FROM local_operators WHERE zone_id=? AND user_id=?", zoneID, userID); err != nil {
		return err
	}
	return tx.DesireGone(zoneID, &apiv1.Reference{Kind: localOperator, Id: userID})
}

// toldOperator is what goes down of an operator.
func (tx *Tx) toldOperator(zoneID string, d desired) (*linkv1.LocalOperator, error) {
	m := &commandv1.LocalOperator{}
	err := tx.message(m, "SELECT message, crc FROM local_operators WHERE zone_id=? AND user_id=?", zoneID, d.id)
	return &linkv1.LocalOperator{Id: d.id, Sealed: m.GetSealed(), Generation: &apiv1.Generation{Epoch: d.epoch, Index: d.revision}}, err
}
