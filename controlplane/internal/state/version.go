package state

import (
	"fmt"

	"zombiezen.com/go/sqlite"
)

// PutVersion stores m whole as a version of the noun that has its id, beside the row that the noun has, and writes m.revision
// from the transaction's.
func (t Table[M]) PutVersion(m M, version uint32) error {
	if !t.tx.writable {
		return errReadOnly
	}
	t.spec.revise(m, t.tx.meta.Text())
	b, err := encode(m)
	if err != nil {
		return fmt.Errorf("store version %d of %s %s: %w", version, t.spec.noun, m.GetId(), err)
	}
	return t.tx.write(`INSERT INTO versions (noun, id, version, crc, message) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (noun, id, version) DO UPDATE SET crc=excluded.crc, message=excluded.message`, t.spec.noun, m.GetId(), version, checksum(b), b)
}

// Version returns a version of a noun. Errors: ErrNotFound.
func (t Table[M]) Version(id string, version uint32) (m M, err error) {
	err = t.tx.first("SELECT message, crc FROM versions WHERE noun=? AND id=? AND version=?", func(s *sqlite.Stmt) error {
		m = t.spec.zero()
		return decodeInto(s, m, "versions")
	}, t.spec.noun, id, version)
	return m, err
}

// Versions returns at most limit versions of a noun below one, the newest first.
func (t Table[M]) Versions(id string, below uint64, limit int) (versions []M, err error) {
	err = t.tx.query("SELECT message, crc FROM versions WHERE noun=? AND id=? AND version<? ORDER BY version DESC"+atMost, func(s *sqlite.Stmt) error {
		m := t.spec.zero()
		versions = append(versions, m)
		return decodeInto(s, m, "versions")
	}, t.spec.noun, id, below, limit)
	return versions, err
}

// ForgetVersion removes a version of a noun.
func (t Table[M]) ForgetVersion(id string, version uint32) error {
	return t.tx.write("DELETE FROM versions WHERE noun=? AND id=? AND version=?", t.spec.noun, id, version)
}

// ForgetVersions removes all versions of a noun.
func (t Table[M]) ForgetVersions(id string) error {
	return t.tx.write("DELETE FROM versions WHERE noun=? AND id=?", t.spec.noun, id)
}
