package state

import (
	"cmp"
	"slices"

	"zombiezen.com/go/sqlite"

	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// desired is one thing that a zone should hold, or no longer: where to find it.
type desired struct {
	noun, id, name  string
	epoch, revision uint64
	gone            bool
}

// DesiredSince returns what of a zone's objects was wished anew after a revision, in ascending order: its Zone, Clusters,
// Hosts, VMs and Reservations as schema.Desired copies, the checkpoint that it is shown, who may log in while it is cut off, and tombstones
// that it has not acknowledged. Having committed them, the zone stands at through. A revision is never cut in two, so more than limit may come where one revision wrote more than that
// (Apply writes at most 128 at one).
func (tx *Tx) DesiredSince(zoneID string, after uint64, limit int) (objects []*linkv1.Object, through uint64, more bool, err error) {
	found, err := tx.desiredAfter(zoneID, after, limit)
	if err != nil {
		return nil, 0, false, err
	}
	through = tx.meta.Revision
	if len(found) > limit {
		found, more = cutGroup(found, limit), true
		through = found[len(found)-1].revision
		if len(found) > limit { // one revision that is larger than limit: all of it
			if found, err = tx.desiredAfter(zoneID, after, len(found)+1<<16); err != nil {
				return nil, 0, false, err
			}
			found = slices.DeleteFunc(found, func(d desired) bool { return d.revision > through })
		}
	}
	for _, d := range found {
		o, err := tx.desiredObject(zoneID, d)
		if err != nil {
			return nil, 0, false, err
		}
		objects = append(objects, o)
	}
	return objects, through, more, nil
}

// cutGroup returns the longest beginning of at most limit that ends with a revision's last one; the first revision
// whole where it does not fit.
func cutGroup(found []desired, limit int) []desired {
	end := limit
	for end > 0 && found[end-1].revision == found[end].revision {
		end--
	}
	if end > 0 {
		return found[:end]
	}
	return found
}

// desiredAfter returns the first limit+1 by revision.
func (tx *Tx) desiredAfter(zoneID string, after uint64, limit int) (found []desired, err error) {
	for _, t := range [...]struct{ noun, table string }{{"cluster", "clusters"}, {"host", "hosts"}, {"vm", "vms"}, {"reservation", "reservations"}} {
		err := tx.query("SELECT id, generation FROM "+t.table+" WHERE zone_id=? AND generation>? ORDER BY generation, id"+atMost, func(s *sqlite.Stmt) error {
			found = append(found, desired{noun: t.noun, id: s.ColumnText(0), revision: uint64(s.ColumnInt64(1))})
			return nil
		}, zoneID, after, limit+1)
		if err != nil {
			return nil, err
		}
	}
	const rest = "SELECT noun, id, name, epoch, revision, gone FROM desired WHERE zone_id=? AND revision>? ORDER BY revision, noun, id" + atMost
	err = tx.query(rest, func(s *sqlite.Stmt) error {
		found = append(found, desired{noun: s.ColumnText(0), id: s.ColumnText(1), name: s.ColumnText(2),
			epoch: uint64(s.ColumnInt64(3)), revision: uint64(s.ColumnInt64(4)), gone: s.ColumnBool(5)})
		return nil
	}, zoneID, after, limit+1)
	slices.SortFunc(found, func(a, b desired) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.noun, b.noun), cmp.Compare(a.id, b.id))
	})
	return found[:min(limit+1, len(found))], err
}

func (tx *Tx) desiredObject(zoneID string, d desired) (*linkv1.Object, error) {
	o := &linkv1.Object{Revision: d.revision}
	if d.gone {
		o.Noun = &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{
			Noun:       &apiv1.Reference{Kind: d.noun, Id: d.id, Name: d.name},
			Generation: &apiv1.Generation{Epoch: d.epoch, Index: d.revision},
		}}
		return o, nil
	}
	switch d.noun {
	case "zone":
		m, err := tx.Zones.Get(d.id)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_Zone{Zone: schema.Desired(m)}
	case "cluster":
		m, err := tx.Clusters.Get(d.id)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_Cluster{Cluster: schema.Desired(m)}
	case "host":
		m, err := tx.Hosts.Get(d.id)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_Host{Host: schema.Desired(m)}
	case "reservation":
		m, err := tx.Reservations.Get(d.id)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_Reservation{Reservation: schema.Desired(m)}
	case "checkpoint":
		m, err := tx.shown(zoneID, d)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_Checkpoint{Checkpoint: m}
	case localOperator:
		m, err := tx.toldOperator(zoneID, d)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_LocalOperator{LocalOperator: m}
	default:
		m, err := tx.VMs.Get(d.id)
		if err != nil {
			return nil, err
		}
		o.Noun = &linkv1.Object_Vm{Vm: schema.Desired(m)}
	}
	return o, nil
}

// Desire makes the zone's own noun go down anew. Clusters, hosts, VMs and reservations go down by their generation; for them it only
// tells the watches.
func (tx *Tx) Desire(zoneID string, noun *apiv1.Reference) error {
	tx.touchZone(TopicDesired, zoneID)
	if noun.GetKind() != "zone" {
		return nil
	}
	return tx.putDesired(zoneID, noun, false)
}

// DesireGone leaves a tombstone that goes down to the zone, and stays until it has acknowledged it.
func (tx *Tx) DesireGone(zoneID string, noun *apiv1.Reference) error {
	tx.touchZone(TopicDesired, zoneID)
	return tx.putDesired(zoneID, noun, true)
}

func (tx *Tx) putDesired(zoneID string, noun *apiv1.Reference, gone bool) error {
	return tx.write(`INSERT INTO desired (zone_id, noun, id, name, epoch, revision, gone) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (zone_id, noun, id) DO UPDATE SET name=excluded.name, epoch=excluded.epoch, revision=excluded.revision, gone=excluded.gone`,
		zoneID, noun.GetKind(), noun.GetId(), noun.GetName(), tx.meta.Epoch, tx.meta.Revision, gone)
}

// IsDesiredGone reports whether a tombstone of the noun waits for the zone.
func (tx *Tx) IsDesiredGone(zoneID, noun, id string) (gone bool, err error) {
	err = tx.first("SELECT gone FROM desired WHERE zone_id=? AND noun=? AND id=?", func(s *sqlite.Stmt) error {
		gone = s.ColumnBool(0)
		return nil
	}, zoneID, noun, id)
	return gone, ignoreMissing(err)
}

// DesiredPoint returns how far the zone has what it should hold; nil when it has never said.
func (tx *Tx) DesiredPoint(zoneID string) (point *apiv1.Generation, err error) {
	err = tx.first("SELECT epoch, revision FROM desired_points WHERE zone_id=?", func(s *sqlite.Stmt) error {
		point = &apiv1.Generation{Epoch: uint64(s.ColumnInt64(0)), Index: uint64(s.ColumnInt64(1))}
		return nil
	}, zoneID)
	return point, ignoreMissing(err)
}

// AcknowledgeDesired notes how far the zone has what it should hold, and drops the tombstones that it has.
func (tx *Tx) AcknowledgeDesired(zoneID string, point *apiv1.Generation) error {
	err := tx.write(`INSERT INTO desired_points (zone_id, epoch, revision) VALUES (?, ?, ?)
		ON CONFLICT (zone_id) DO UPDATE SET epoch=excluded.epoch, revision=excluded.revision`, zoneID, point.GetEpoch(), point.GetIndex())
	if err != nil {
		return err
	}
	return tx.write("DELETE FROM desired WHERE zone_id=? AND gone=1 AND revision<=?", zoneID, point.GetIndex())
}

// ForgetZone removes all that belongs to the link with a zone.
func (tx *Tx) ForgetZone(zoneID string) error {
	for _, table := range [...]string{"desired", "desired_points", "observed_points", "observed_in_sync", "journal_points", "rejected",
		"order_heads", "orders", "sessions", "members", "told", "tallies", "former_vms", "local_operators"} {
		if err := tx.write("DELETE FROM "+table+" WHERE zone_id=?", zoneID); err != nil {
			return err
		}
	}
	tx.touchZone(TopicDesired, zoneID)
	tx.touchZone(TopicOrders, zoneID)
	tx.touch(TopicIdentity)
	return nil
}

func (tx *Tx) touchZone(topic, zoneID string) {
	tx.touch(topic)
	tx.touch(ForZone(topic, zoneID))
}
