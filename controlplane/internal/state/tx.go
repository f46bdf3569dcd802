package state

import (
	"fmt"

	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Tx is one transaction: a snapshot to read, or the one that writes. It belongs to the function it was given to and to
// one goroutine, and ends with that function. Methods that write fail in a transaction that only reads.
type Tx struct {
	Offerings        Table[*apiv1.Offering]
	Calendars        Table[*apiv1.Calendar]
	ApprovalPolicies Table[*apiv1.ApprovalPolicy]

	Zones          Table[*apiv1.Zone]
	Clusters       Table[*apiv1.Cluster]
	Hosts          Table[*apiv1.Host]
	Flavors        Table[*apiv1.Flavor]
	Images         Table[*apiv1.Image]
	Projects       Table[*apiv1.Project]
	Brokers        Table[*apiv1.Broker]
	VMs            Table[*apiv1.VM]
	Operations     Table[*apiv1.Operation]
	Events         Table[*apiv1.Event]
	Servers        Table[*apiv1.Server]
	AccessTokens   Table[*apiv1.AccessToken]
	Administrators Table[*apiv1.Administrator]
	Organizations  Table[*apiv1.Organization]
	Users          Table[*apiv1.User]
	Groups         Table[*apiv1.Group]
	Sessions       Table[*apiv1.Session]
	Roles          Table[*apiv1.Role]
	RoleBindings   Table[*apiv1.RoleBinding]
	Requests       Table[*apiv1.Request]
	Delegations    Table[*apiv1.Delegation]
	Crossings      Table[*apiv1.Crossing]
	Quotas         Table[*apiv1.Quota]
	Leases         Table[*apiv1.Lease]

	Reservations Table[*apiv1.Reservation]
	Snapshots    Table[*apiv1.Snapshot]
	UsageRecords Table[*apiv1.UsageRecord]

	Notifications        Table[*apiv1.Notification]
	NotificationChannels Table[*apiv1.NotificationChannel]
	Deliveries           Table[*apiv1.Delivery]

	IdentityProviders Table[*apiv1.IdentityProvider]
	Identities        Table[*apiv1.Identity]

	kinds map[string]finder

	conn     *sqlite.Conn
	fail     func(error) error
	meta     Meta
	writable bool
	writes   int
	touched  map[string]struct{}
	keep     uint64
	// log is the control plane's own, to which nothing is written that may be undone.
	log      Log
	auditLog logTable
	zoneLogs logTable
	// fresh is what zoneFreshness has read so far.
	fresh map[string]apiv1.Freshness_Level
	// graded is what gradeOf has read so far.
	graded map[owner]apiv1.Zone_Grade
	// grown is by how much more is counted than at the last Measure.
	grown map[Cell]Amounts
}

// begin makes a transaction over a connection on which BEGIN has been said.
func (db *DB) begin(conn *sqlite.Conn, writable bool, fail func(error) error) (*Tx, error) {
	tx := &Tx{conn: conn, fail: fail, writable: writable, keep: db.keepTombstones, auditLog: db.auditLog, zoneLogs: db.zoneLogs}
	c := db.nouns
	tx.Offerings = Table[*apiv1.Offering]{tx, c.offerings}
	tx.Calendars = Table[*apiv1.Calendar]{tx, c.calendars}
	tx.ApprovalPolicies = Table[*apiv1.ApprovalPolicy]{tx, c.approvalPolicies}
	tx.Zones = Table[*apiv1.Zone]{tx, c.zones}
	tx.Clusters = Table[*apiv1.Cluster]{tx, c.clusters}
	tx.Hosts = Table[*apiv1.Host]{tx, c.hosts}
	tx.Flavors = Table[*apiv1.Flavor]{tx, c.flavors}
	tx.Images = Table[*apiv1.Image]{tx, c.images}
	tx.Projects = Table[*apiv1.Project]{tx, c.projects}
	tx.Brokers = Table[*apiv1.Broker]{tx, c.brokers}
	tx.VMs = Table[*apiv1.VM]{tx, c.vms}
	tx.Operations = Table[*apiv1.Operation]{tx, c.operations}
	tx.Events = Table[*apiv1.Event]{tx, c.events}
	tx.Servers = Table[*apiv1.Server]{tx, c.servers}
	tx.AccessTokens = Table[*apiv1.AccessToken]{tx, c.accessTokens}
	tx.Administrators = Table[*apiv1.Administrator]{tx, c.administrators}
	tx.Organizations = Table[*apiv1.Organization]{tx, c.organizations}
	tx.Users = Table[*apiv1.User]{tx, c.users}
	tx.Groups = Table[*apiv1.Group]{tx, c.groups}
	tx.Sessions = Table[*apiv1.Session]{tx, c.sessions}
	tx.Roles = Table[*apiv1.Role]{tx, c.roles}
	tx.RoleBindings = Table[*apiv1.RoleBinding]{tx, c.roleBindings}
	tx.Requests = Table[*apiv1.Request]{tx, c.requests}
	tx.Delegations = Table[*apiv1.Delegation]{tx, c.delegations}
	tx.Crossings = Table[*apiv1.Crossing]{tx, c.crossings}
	tx.Quotas = Table[*apiv1.Quota]{tx, c.quotas}
	tx.Leases = Table[*apiv1.Lease]{tx, c.leases}
	tx.Reservations = Table[*apiv1.Reservation]{tx, c.reservations}
	tx.Snapshots = Table[*apiv1.Snapshot]{tx, c.snapshots}
	tx.UsageRecords = Table[*apiv1.UsageRecord]{tx, c.usageRecords}
	tx.Notifications = Table[*apiv1.Notification]{tx, c.notifications}
	tx.NotificationChannels = Table[*apiv1.NotificationChannel]{tx, c.notificationChannels}
	tx.Deliveries = Table[*apiv1.Delivery]{tx, c.deliveries}
	tx.IdentityProviders = Table[*apiv1.IdentityProvider]{tx, c.identityProviders}
	tx.Identities = Table[*apiv1.Identity]{tx, c.identities}
	tx.kinds = c.kinds
	if writable {
		tx.touched = map[string]struct{}{}
	} else {
		tx.fresh = map[string]apiv1.Freshness_Level{}
	}
	return tx, tx.loadMeta()
}

// Writes counts the statements that have written so far; a caller compares it to know whether anything was.
func (tx *Tx) Writes() int { return tx.writes }

// Savepoint runs fn; when fn fails, what it wrote is undone and its error returned. It costs about as much as the writes
// inside it (SQLite keeps a copy of every page they touch).
func (tx *Tx) Savepoint(fn func() error) error {
	meta := tx.meta
	if err := tx.exec("SAVEPOINT command"); err != nil {
		return err
	}
	if err := fn(); err != nil {
		tx.meta = meta
		if e := tx.exec("ROLLBACK TO command"); e != nil {
			return e
		}
		if e := tx.exec("RELEASE command"); e != nil {
			return e
		}
		return err
	}
	return tx.exec("RELEASE command")
}

// touch notes for the watches that something under the topic changed.
func (tx *Tx) touch(topic string) {
	if tx.writable {
		tx.touched[topic] = struct{}{}
	}
}

// write runs a statement that changes rows.
func (tx *Tx) write(sql string, args ...any) error {
	if !tx.writable {
		return errReadOnly
	}
	tx.writes++
	return tx.exec(sql, args...)
}

// exec runs a cached statement that returns no row.
func (tx *Tx) exec(sql string, args ...any) error {
	return tx.query(sql, nil, args...)
}

// atMost ends a statement that returns at most as many rows as its last argument says. The sign hides the number from
// SQLite's planner, which would else plan the statement anew each time it is run.
const atMost = " LIMIT +?"

// query runs a cached statement and calls row for each of its rows.
func (tx *Tx) query(sql string, row func(*sqlite.Stmt) error, args ...any) error {
	s, err := tx.prepare(sql)
	if err != nil {
		return err
	}
	return tx.run(s, row, args)
}

// queryOnce is query for a statement whose text is a user's; it is not kept.
func (tx *Tx) queryOnce(sql string, row func(*sqlite.Stmt) error, args ...any) error {
	if tx.conn == nil {
		return ErrClosed
	}
	s, _, err := tx.conn.PrepareTransient(sql)
	if err != nil {
		return tx.fail(fmt.Errorf("%s: %w", sql, err))
	}
	defer func() { _ = s.Finalize() }()
	return tx.run(s, row, args)
}

func (tx *Tx) prepare(sql string) (*sqlite.Stmt, error) {
	if tx.conn == nil {
		return nil, ErrClosed
	}
	s, err := tx.conn.Prepare(sql)
	if err != nil {
		return nil, tx.fail(fmt.Errorf("%s: %w", sql, err))
	}
	return s, nil
}

func (tx *Tx) run(s *sqlite.Stmt, row func(*sqlite.Stmt) error, args []any) error {
	for i, a := range args {
		bind(s, i+1, a)
	}
	return tx.step(s, row)
}

func (tx *Tx) step(s *sqlite.Stmt, row func(*sqlite.Stmt) error) error {
	for {
		more, err := s.Step()
		if err != nil {
			_ = s.Reset() // repeats the error of the step
			return tx.fail(err)
		}
		if !more {
			break
		}
		if row == nil {
			continue
		}
		if err := row(s); err != nil {
			_ = s.Reset()
			return err
		}
	}
	if err := s.Reset(); err != nil {
		return tx.fail(err)
	}
	return nil
}

func bind(s *sqlite.Stmt, i int, a any) {
	switch a := a.(type) {
	case string:
		s.BindText(i, a)
	case []byte:
		s.BindBytes(i, a)
	case bool:
		s.BindBool(i, a)
	case int:
		s.BindInt64(i, int64(a))
	case int64:
		s.BindInt64(i, a)
	case uint32:
		s.BindInt64(i, int64(a))
	case uint64:
		s.BindInt64(i, int64(a))
	default:
		panic(fmt.Sprintf("bind %T: not a type of the state's columns", a))
	}
}

func columnBytes(s *sqlite.Stmt, i int) []byte {
	b := make([]byte, s.ColumnLen(i))
	s.ColumnBytes(i, b)
	return b
}
