package state

import (
	"strconv"

	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// ZoneLog is what is known of a log that a zone has kept itself in one life of its store. Its entries are in Tx.Log.
type ZoneLog struct {
	*apiv1.AuditLog
	// Number of it among those of zones of the name, from 1.
	Number uint64
	// Size is how many entries it has, Sealed of how many the control plane's own log tells, and SealedAt since when, in microseconds.
	Size, Sealed uint64
	SealedAt     int64
}

const zoneLogFields = "SELECT message, crc, number, size, sealed, sealed_at FROM zone_logs "

func zoneLogOf(s *sqlite.Stmt) (ZoneLog, error) {
	l := ZoneLog{AuditLog: &apiv1.AuditLog{}, Number: uint64(s.ColumnInt64(2)), Size: uint64(s.ColumnInt64(3)),
		Sealed: uint64(s.ColumnInt64(4)), SealedAt: s.ColumnInt64(5)}
	return l, decodeInto(s, l.AuditLog, "zone_logs")
}

func (tx *Tx) zoneLogsWhere(rest string, args ...any) (all []ZoneLog, err error) {
	err = tx.query(zoneLogFields+rest, func(s *sqlite.Stmt) error {
		l, err := zoneLogOf(s)
		all = append(all, l)
		return err
	}, args...)
	return all, err
}

// ZoneLog returns what is known of the log of a name: business/1. Errors: ErrNotFound.
func (tx *Tx) ZoneLog(name string) (l ZoneLog, err error) {
	err = tx.first(zoneLogFields+"WHERE name=?", func(s *sqlite.Stmt) (err error) {
		l, err = zoneLogOf(s)
		return err
	}, name)
	return l, err
}

// ZoneLogs returns all logs of zones, also of those that are gone: by the zone's name, the oldest first.
func (tx *Tx) ZoneLogs() ([]ZoneLog, error) { return tx.zoneLogsWhere("ORDER BY zone, number") }

// ZoneLogsOf returns the logs of a zone, the oldest first.
func (tx *Tx) ZoneLogsOf(zoneID string) ([]ZoneLog, error) {
	return tx.zoneLogsWhere("WHERE zone_id=? ORDER BY number", zoneID)
}

// UnsealedLogs returns up to limit logs with entries of which the control plane's own log does not tell, and has not told since the time
// in microseconds.
func (tx *Tx) UnsealedLogs(before int64, limit int) ([]ZoneLog, error) {
	return tx.zoneLogsWhere("WHERE size>sealed AND sealed_at<=? ORDER BY name"+atMost, before, limit)
}

// NewZoneLog returns the next log of a zone, which is not stored yet. A zone with the name of one that is gone goes on counting.
func (tx *Tx) NewZoneLog(zone *apiv1.Zone, incarnation string) (l ZoneLog, err error) {
	l.AuditLog = &apiv1.AuditLog{Zone: zone.GetName(), ZoneId: zone.GetId(), IncarnationId: incarnation}
	err = tx.query("SELECT coalesce(max(number), 0) FROM zone_logs WHERE zone=?", func(s *sqlite.Stmt) error {
		l.Number = uint64(s.ColumnInt64(0)) + 1
		return nil
	}, zone.GetName())
	l.Name = zone.GetName() + "/" + strconv.FormatUint(l.Number, 10)
	return l, err
}

// PutZoneLog replaces what is known of a zone's log.
func (tx *Tx) PutZoneLog(l ZoneLog) error {
	b, err := encode(l.AuditLog)
	if err != nil {
		return err
	}
	return tx.write(`INSERT INTO zone_logs (name, zone, number, zone_id, size, sealed, sealed_at, crc, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET size=excluded.size, sealed=excluded.sealed, sealed_at=excluded.sealed_at, crc=excluded.crc, message=excluded.message`,
		l.GetName(), l.GetZone(), l.Number, l.GetZoneId(), l.Size, l.Sealed, l.SealedAt, checksum(b), b)
}
