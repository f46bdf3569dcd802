package etcdstore

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// Space is a part of the store with one kind of value.
type Space string

// Spaces that consumers follow.
const (
	// Desired is what the control plane wants: a noun at kind and id.
	Desired Space = "desired"
	// Observed is what the zone reports: a noun at kind and id.
	Observed Space = "observed"
	// Allocation is what is taken of a host: zonev1.Allocation at the host's id.
	Allocation Space = "allocation"
	// Address is who has an address: zonev1.AddressLease at the address.
	Address Space = "address"
	// Work is what is to be done to a VM: zonev1.Work at the VM's id.
	Work Space = "work"
	// Order is an action asked by the control plane and not yet taken up: linkv1.JournalEntry; the kind is its stream
	// (a cluster's id or "zone"), the id is "origin/stream/sequence".
	Order Space = "orders"
	// Unclaimed is a desired object that the last full sync did not name: apiv1.Reference at kind and id. It is kept as
	// it is and nothing new is begun with it.
	Unclaimed Space = "unclaimed"
	// Cursor is where the zone stands in the control plane's state: zonev1.Cursor. While syncing is set, absence and
	// presence of desired objects mean nothing yet.
	Cursor Space = "cursor"
	// Witness is what the zone remembers of the control plane's audit log: zonev1.Witness.
	Witness Space = "witness"
	// LocalSession is a session of an operator who logged in while the zone was cut off: zonev1.LocalSession at the session's id.
	LocalSession Space = "localsession"
	// LocalLog is how far the zone's own log has grown: zonev1.LocalLog.
	LocalLog Space = "locallog"
)

// Spaces of the package's own.
const (
	tombstones   Space = "tombstone"
	journals     Space = "journal"
	journalHead  Space = "journalhead"
	journalAcked Space = "journalacked"
	orderPoint   Space = "orderpoint"
	rejected     Space = "rejected"
	syncing      Space = "syncing"
	incarnation  Space = "incarnation"
	incarnations Space = "incarnations"
	roles        Space = "members"
	elections    Space = "election"
)

// followed are the spaces that Follow tells of; inPicture those of the Picture, in the order in which both read them.
var (
	followed  = []Space{Desired, Observed, Allocation, Address, Work, Order, Unclaimed, Cursor}
	inPicture = []Space{Desired, Observed, Unclaimed, tombstones}
)

// Change is one key that was written, or deleted: then Message is nil. Revision is the key's modification revision,
// which Tx.Require compares.
type Change struct {
	Space    Space
	Kind     string
	ID       string
	Message  proto.Message
	Revision int64
}

// kinds are the nouns that cross the link, by the word that stands in keys and references.
var kinds = map[string]func() proto.Message{
	"zone":    func() proto.Message { return new(apiv1.Zone) },
	"cluster": func() proto.Message { return new(apiv1.Cluster) },
	"host":    func() proto.Message { return new(apiv1.Host) },
	"vm":      func() proto.Message { return new(apiv1.VM) },

	"reservation": func() proto.Message { return new(apiv1.Reservation) },
	"checkpoint":  func() proto.Message { return new(linkv1.Checkpoint) },

	"local-operator": func() proto.Message { return new(linkv1.LocalOperator) },
}

// values are the messages of the spaces that hold one kind only.
var values = map[Space]func() proto.Message{
	Allocation:   func() proto.Message { return new(zonev1.Allocation) },
	Address:      func() proto.Message { return new(zonev1.AddressLease) },
	Work:         func() proto.Message { return new(zonev1.Work) },
	Order:        func() proto.Message { return new(linkv1.JournalEntry) },
	Unclaimed:    func() proto.Message { return new(apiv1.Reference) },
	Cursor:       func() proto.Message { return new(zonev1.Cursor) },
	Witness:      func() proto.Message { return new(zonev1.Witness) },
	LocalSession: func() proto.Message { return new(zonev1.LocalSession) },
	LocalLog:     func() proto.Message { return new(zonev1.LocalLog) },
	tombstones:   func() proto.Message { return new(linkv1.Tombstone) },
	journals:     func() proto.Message { return new(linkv1.JournalEntry) },
	journalHead:  func() proto.Message { return new(zonev1.JournalHead) },
	journalAcked: func() proto.Message { return new(zonev1.JournalHead) },
	orderPoint:   func() proto.Message { return new(linkv1.JournalPoint) },
	rejected:     func() proto.Message { return new(linkv1.Rejected) },
	syncing:      func() proto.Message { return new(zonev1.Cursor) },
	incarnation:  func() proto.Message { return new(zonev1.Incarnation) },
	incarnations: func() proto.Message { return new(zonev1.Incarnation) },
	roles:        func() proto.Message { return new(etcdserverpb.Member) },
	elections:    func() proto.Message { return new(apiv1.Reference) },
}

// KindOf is the word for a noun in keys and references: "zone", "cluster", "host", "vm", "reservation", "checkpoint" or
// "local-operator"; "" for anything else.
func KindOf(noun proto.Message) string {
	switch noun.(type) {
	case *apiv1.Zone:
		return "zone"
	case *apiv1.Cluster:
		return "cluster"
	case *apiv1.Host:
		return "host"
	case *apiv1.VM:
		return "vm"
	case *apiv1.Reservation:
		return "reservation"
	case *linkv1.Checkpoint:
		return "checkpoint"
	case *linkv1.LocalOperator:
		return "local-operator"
	}
	return ""
}

type identified interface{ GetId() string }

// idOf is a noun's id.
func idOf(noun proto.Message) string {
	if n, ok := noun.(identified); ok {
		return n.GetId()
	}
	return ""
}

// keyspace makes and reads the keys of one zone.
type keyspace struct {
	// prefix is "/naru/<zone id>/".
	prefix string
}

func newKeyspace(zone string) keyspace { return keyspace{prefix: "/naru/" + zone + "/"} }

func (k keyspace) of(s Space, parts ...string) string {
	return k.prefix + strings.Join(append([]string{string(s)}, parts...), "/")
}

// under is the prefix of all keys below parts; it ends with a slash, so that "vm-1" is not below "vm".
func (k keyspace) under(s Space, parts ...string) string { return k.of(s, parts...) + "/" }

// sequence orders entries of a stream as text.
func sequence(n uint64) string { return fmt.Sprintf("%020d", n) }

// change reads a key and its value; ok is false for a key of a space that is not known.
func (k keyspace) change(kv *mvccpb.KeyValue) (c Change, ok bool, err error) {
	key := string(kv.GetKey())
	if c, ok = k.parse(key); !ok {
		return c, false, nil
	}
	c.Revision = kv.GetModRevision()
	c.Message, err = decode(c.Space, c.Kind, key, kv.GetValue())
	return c, true, err
}

// parse reads a key. Revision and Message stay empty.
func (k keyspace) parse(key string) (c Change, ok bool) {
	rest, ok := strings.CutPrefix(key, k.prefix)
	if !ok {
		return c, false
	}
	space, id, _ := strings.Cut(rest, "/")
	c.Space, c.ID = Space(space), id
	switch c.Space {
	case Desired, Observed, Unclaimed, tombstones:
		c.Kind, c.ID, _ = strings.Cut(id, "/")
		_, ok = kinds[c.Kind]
		return c, ok
	case Order:
		parts := strings.Split(id, "/")
		if len(parts) != 3 {
			return c, false
		}
		c.Kind = parts[1]
		return c, true
	}
	_, ok = values[c.Space]
	return c, ok
}

// decode reads a value; the error is a DecodeError.
func decode(s Space, kind, key string, value []byte) (proto.Message, error) {
	fresh := values[s]
	if s == Desired || s == Observed {
		fresh = kinds[kind]
	}
	if fresh == nil {
		return nil, &DecodeError{Key: key, Err: fmt.Errorf("nothing of kind %q is kept here", kind)}
	}
	m := fresh()
	if err := proto.Unmarshal(value, m); err != nil {
		return nil, &DecodeError{Key: key, Err: err}
	}
	return m, nil
}

// checkPart refuses what would make another key than meant.
func checkPart(what, s string) error {
	if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r < ' ' }) {
		return fmt.Errorf("%s %q cannot be part of a key: 1 to 64 characters without slash", what, s)
	}
	return nil
}

// named is the key of what has a kind and an id, or an id only, or neither.
func (k keyspace) named(s Space, kind, id string) string {
	switch s {
	case Desired, Observed, Unclaimed, tombstones:
		return k.of(s, kind, id)
	case Cursor, Witness, LocalLog, syncing, incarnation:
		return k.of(s)
	}
	return k.of(s, id)
}
