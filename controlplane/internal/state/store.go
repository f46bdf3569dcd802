package state

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"zombiezen.com/go/sqlite"
)

// store is a table as snapshots see it.
type store interface {
	name() string
	// createTable and createIndexes are the statements that make it.
	createTable() string
	createIndexes() []string
	// dumped names what a snapshot holds of a row.
	dumped() []string
	// dump calls row with those values for each row, in the order of the key. Checksums are verified. The slice is reused.
	dump(tx *Tx, row func([]field) error) error
	// load stores one row of a snapshot that holds the named values, which may be fewer than dumped.
	load(tx *Tx, names []string, row []field) error
}

// plain is a table that is no noun's. A column crc is the checksum of the column message.
type plain struct {
	table string
	// columns are names with SQL types. One that is added later needs a DEFAULT, so that older snapshots can be read.
	columns [][2]string
	key     []string
	// further are indexes: what follows ON table.
	further []string
}

func (p plain) name() string { return p.table }

func (p plain) createTable() string {
	var defs []string
	for _, c := range p.columns {
		defs = append(defs, c[0]+" "+c[1]+" NOT NULL")
	}
	return fmt.Sprintf("CREATE TABLE %s (%s, PRIMARY KEY (%s)) WITHOUT ROWID, STRICT", p.table, strings.Join(defs, ", "), strings.Join(p.key, ", "))
}

func (p plain) createIndexes() []string { return indexStatements(p.table, p.further) }

func (p plain) dumped() []string {
	var names []string
	for _, c := range p.columns {
		names = append(names, c[0])
	}
	return names
}

func (p plain) dump(tx *Tx, row func([]field) error) error {
	names := p.dumped()
	crc, message := slices.Index(names, "crc"), slices.Index(names, "message")
	fields := make([]field, len(names))
	sql := fmt.Sprintf("SELECT %s FROM %s ORDER BY %s", strings.Join(names, ", "), p.table, strings.Join(p.key, ", "))
	return tx.query(sql, func(s *sqlite.Stmt) error {
		for i := range fields {
			fields[i] = fieldOf(s, i)
		}
		if crc >= 0 && checksum(fields[message].bytes) != fields[crc].number {
			return fmt.Errorf("%w: a row of %s does not fit its checksum", ErrCorrupt, p.table)
		}
		return row(fields)
	})
}

func (p plain) load(tx *Tx, names []string, row []field) error {
	args := make([]any, len(row))
	for i, f := range row {
		args[i] = f.any()
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(names)), ", ")
	return tx.write(fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", p.table, strings.Join(names, ", "), marks), args...)
}

func indexStatements(table string, further []string) []string {
	var all []string
	for i, f := range further {
		all = append(all, fmt.Sprintf("CREATE INDEX %s_%d ON %s %s", table, i, table, f))
	}
	return all
}

func (s *spec[M]) name() string { return s.plural }

func (s *spec[M]) createTable() string {
	defs := []string{"id TEXT NOT NULL PRIMARY KEY"}
	for _, c := range s.columns {
		if c.stored() {
			defs = append(defs, c.name+" "+c.sqlType()+" NOT NULL")
		}
	}
	defs = append(defs, "revision INTEGER NOT NULL", "crc INTEGER NOT NULL", "message BLOB NOT NULL")
	return fmt.Sprintf("CREATE TABLE %s (%s) WITHOUT ROWID, STRICT", s.plural, strings.Join(defs, ", "))
}

// createIndexes: by revision for Since, by name for the usual order of lists, and within its scope for uniqueness.
func (s *spec[M]) createIndexes() []string {
	all := []string{fmt.Sprintf("CREATE INDEX %s_revision ON %s (revision)", s.plural, s.plural)}
	if s.named {
		key := strings.Join(append(slices.Clone(s.scope), "name"), ", ")
		all = append(all, fmt.Sprintf("CREATE UNIQUE INDEX %s_name ON %s (%s)", s.plural, s.plural, key))
	}
	if s.named && len(s.scope) > 0 {
		all = append(all, fmt.Sprintf("CREATE INDEX %s_by_name ON %s (name)", s.plural, s.plural))
	}
	return append(all, indexStatements(s.plural, s.further)...)
}

func (s *spec[M]) dumped() []string { return []string{"revision", "message"} }

func (s *spec[M]) dump(tx *Tx, row func([]field) error) error {
	fields := make([]field, 2)
	return tx.query("SELECT revision, message, crc FROM "+s.plural+" ORDER BY id", func(q *sqlite.Stmt) error {
		fields[0], fields[1] = fieldOf(q, 0), fieldOf(q, 1)
		if checksum(fields[1].bytes) != q.ColumnInt64(2) {
			return fmt.Errorf("%w: a row of %s does not fit its checksum", ErrCorrupt, s.plural)
		}
		return row(fields)
	})
}

// load reckons the columns from the message, so that a version with other columns reads the same snapshot.
func (s *spec[M]) load(tx *Tx, names []string, row []field) error {
	if !slices.Equal(names, s.dumped()) {
		return fmt.Errorf("rows of %s hold %v, not %v", s.plural, names, s.dumped())
	}
	m := s.zero()
	if err := proto.Unmarshal(row[1].bytes, m); err != nil {
		return fmt.Errorf("a row of %s is no %T: %w", s.plural, m, err)
	}
	return Table[M]{tx, s}.insert(m, row[1].bytes, uint64(row[0].number))
}

// plainStores are the tables that are no noun's, in the order in which snapshots hold them.
func plainStores() []store {
	text, number, blob := func(n string) [2]string { return [2]string{n, "TEXT"} },
		func(n string) [2]string { return [2]string{n, "INTEGER"} },
		func(n string) [2]string { return [2]string{n, "BLOB"} }
	added := func(n string) [2]string { return [2]string{n, "INTEGER DEFAULT 0"} }
	type cols = [][2]string
	amounts := func() (all cols) {
		for _, n := range strings.Split(amountColumns, ", ") {
			all = append(all, number(n))
		}
		return all
	}
	return []store{
		// Deleted nouns, for watches. At or below a floor they have been dropped; kept counts those that are left.
		plain{"tombstones", cols{text("noun"), number("revision"), text("id"), number("crc"), blob("message")},
			[]string{"noun", "revision", "id"}, nil},
		plain{"floors", cols{text("noun"), number("floor"), number("kept")}, []string{"noun"}, nil},
		// What a zone should hold and whose row has no generation: the zone itself, the checkpoint of the audit log that it is
		// shown (its name is its size), and what is gone (gone = 1) until the zone has acknowledged that. Clusters, hosts and VMs are found by the generation in their own rows.
		plain{"desired", cols{text("zone_id"), text("noun"), text("id"), text("name"), number("epoch"), number("revision"), number("gone")},
			[]string{"zone_id", "noun", "id"}, []string{"(zone_id, revision)"}},
		plain{"desired_points", cols{text("zone_id"), number("epoch"), number("revision")}, []string{"zone_id"}, nil},
		// How far we have a zone's state; syncing while a full sync is under way, and then what it has brought so far.
		plain{"observed_points", cols{text("zone_id"), text("incarnation"), number("revision"), number("syncing")}, []string{"zone_id"}, nil},
		plain{"observed_in_sync", cols{text("zone_id"), text("vm_id")}, []string{"zone_id", "vm_id"}, nil},
		// How far we have each of a zone's journals, and in which epoch and when that was; how far when the newest backup began,
		// and how far a backup that was confirmed has it.
		plain{"journal_points", cols{text("zone_id"), text("origin"), text("stream"), number("sequence"), number("epoch"),
			added("time"), added("backed_up"), added("covered")},
			[]string{"zone_id", "origin", "stream"}, nil},
		// What was not accepted of them: the newest of each zone, numbered in the order in which they came.
		plain{"rejected", cols{text("zone_id"), text("origin"), text("stream"), number("sequence"), number("time"), text("reason"), added("number")},
			[]string{"zone_id", "origin", "stream", "sequence"}, []string{"(time)", "(zone_id, number)"}},
		// What is kept at a zone's word or because of it, numbered in the order in which it came: events, and requests that are records. Both
		// have their id in event_id, as snapshots call it.
		plain{"told", cols{text("zone_id"), text("source"), number("number"), text("event_id")}, []string{"zone_id", "source", "number"}, nil},
		// What was taken at a zone's word alone in an epoch, counted by kind.
		plain{"tallies", cols{text("zone_id"), number("epoch"), text("kind"), number("number")}, []string{"zone_id", "epoch", "kind"}, nil},
		// VMs that are gone and whose last usage may still come.
		plain{"former_vms", cols{text("id"), text("zone_id"), number("time")}, []string{"id"}, []string{"(time)"}},
		// Our journals to a zone: how far written and acknowledged, and what is not acknowledged.
		plain{"order_heads", cols{text("zone_id"), text("origin"), text("stream"), number("last"), number("acknowledged")},
			[]string{"zone_id", "origin", "stream"}, nil},
		plain{"orders", cols{text("zone_id"), text("origin"), text("stream"), number("sequence"), number("crc"), blob("message")},
			[]string{"zone_id", "origin", "stream", "sequence"}, nil},
		plain{"zone_sessions", cols{text("zone_id"), blob("session"), text("agent"), text("server_id"), text("incarnation"), number("connected")},
			[]string{"zone_id"}, nil},
		// How far the use of each VM is counted, and what goes on: in seconds since 1970. Columns that usage_records has are called as there.
		plain{"usage_heads", cols{text("vm_id"), text("vm"), text("project_id"), text("project"), text("organization_id"), text("organization"), text("zone_id"), text("zone"),
			number("state"), number("cores"), number("memory_mib"), number("disk_gib"), number("counted"), number("gone"), number("crc"), blob("message")},
			[]string{"vm_id"}, []string{"(gone) WHERE gone>0", "(project_id) WHERE state<>0", "(zone_id) WHERE state<>0"}},
		// The newest backup, while it is not confirmed.
		plain{"backups", cols{number("one"), text("id"), number("revision")}, []string{"one"}, nil},
		plain{"keyring", cols{number("one"), number("crc"), blob("message")}, []string{"one"}, nil},
		plain{"join_tokens", cols{text("id"), number("expires_at"), number("crc"), blob("message")}, []string{"id"}, nil},
		plain{"members", cols{text("zone_id"), text("agent"), number("crc"), blob("message")}, []string{"zone_id", "agent"}, nil},
		plain{"revoked", cols{text("name")}, []string{"name"}, nil},
		// Versions of nouns that have them, beside the row that the noun has.
		plain{"versions", cols{text("noun"), text("id"), number("version"), number("crc"), blob("message")}, []string{"noun", "id", "version"}, nil},
		plain{"group_members", cols{text("group_id"), text("user_id"), text("added_by"), number("added_at"), text("provider_id")}, []string{"group_id", "user_id"},
			[]string{"(user_id)", "(provider_id, user_id) WHERE provider_id<>''"}},
		// The last number that a request was given; what an operation works for, while it goes on; what was said of requests, by its
		// id, and the files that came with it.
		plain{"request_numbers", cols{number("one"), number("last")}, []string{"one"}, nil},
		plain{"request_work", cols{text("operation_id"), text("request_id")}, []string{"operation_id"}, nil},
		plain{"comments", cols{text("request_id"), text("id"), number("crc"), blob("message")}, []string{"request_id", "id"}, nil},
		plain{"attachments", cols{text("request_id"), text("id"), number("crc"), blob("message")}, []string{"request_id", "id"}, nil},
		// What each thing takes that quotas count, and what that comes to for its project and the organizations above.
		plain{"charges", append(cols{text("noun"), text("id"), text("project_id"), text("zone_id"), number("grade")}, amounts()...), []string{"noun", "id"},
			[]string{"(project_id, noun)"}},
		plain{"sums", append(cols{text("owner_id"), text("zone_id"), number("grade")}, amounts()...), []string{"owner_id", "zone_id", "grade"}, nil},
		// What is told, and of which it is still to be found out whom it concerns; what channels show to those whom they reach, sealed.
		plain{"notices", cols{text("id"), number("time"), number("crc"), blob("message")}, []string{"id"}, []string{"(time)"}},
		plain{"dropped", cols{text("channel_id"), number("number")}, []string{"channel_id"}, nil},
		plain{"channel_secrets", cols{text("channel_id"), number("crc"), blob("message")}, []string{"channel_id"}, nil},
		// What identity providers are shown by Naru itself, sealed.
		plain{"provider_secrets", cols{text("provider_id"), number("crc"), blob("message")}, []string{"provider_id"}, nil},
		plain{"credentials", cols{text("user_id"), number("crc"), blob("message")}, []string{"user_id"}, nil},
		// Who may log in in a zone while it is cut off, sealed to it.
		plain{"local_operators", cols{text("zone_id"), text("user_id"), number("crc"), blob("message")}, []string{"zone_id", "user_id"}, []string{"(user_id)"}},
		// What was sealed to a key and has counted: SHA-256.
		plain{"seals", cols{text("key_id"), blob("seal")}, []string{"key_id", "seal"}, nil},
		newAuditLog(),
		plain{"audit_checkpoints", cols{number("size"), number("time"), number("crc"), blob("message")}, []string{"size"}, nil},
		// The zones that countersign it; and which of its entries begin an epoch.
		plain{"audit_witnesses", cols{text("zone_id"), number("base"), number("restored"), number("offered"), number("offered_at"), number("crc"),
			blob("message")}, []string{"zone_id"}, nil},
		plain{"audit_epochs", cols{number("epoch"), number("begun")}, []string{"epoch"}, nil},
		// What was taken in of a zone since its last entry in the audit log, and refusals that are counted instead of written.
		plain{"audit_reports", cols{text("zone_id"), number("since"), number("count"), blob("digest")}, []string{"zone_id"}, nil},
		plain{"audit_refusals", cols{text("via_zone_id"), text("actor"), text("action"), text("code"), number("since"), number("count")},
			[]string{"via_zone_id", "actor", "action", "code"}, []string{"(since)"}},
		// The logs that zones have kept themselves, and of how much of each the audit log tells since when.
		plain{"zone_logs", cols{text("name"), text("zone"), number("number"), text("zone_id"), number("size"), number("sealed"), number("sealed_at"),
			number("crc"), blob("message")}, []string{"name"}, []string{"(zone, number)", "(zone_id, number)", "(sealed_at) WHERE size>sealed"}},
		newZoneLogs(),
		// What each command came to, by its id; and by actor and key where a client gave one.
		plain{"outcomes", cols{blob("id"), text("actor"), text("idempotency_key"), blob("request_hash"), number("crc"), blob("message")},
			[]string{"id"}, []string{"(actor, idempotency_key) WHERE idempotency_key<>''"}},
	}
}
