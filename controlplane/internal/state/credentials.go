package state

import (
	"zombiezen.com/go/sqlite"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Credentials returns what shows that somebody is a user. Errors: ErrNotFound where nothing does.
func (tx *Tx) Credentials(userID string) (*commandv1.Credentials, error) {
	m := &commandv1.Credentials{}
	return m, tx.message(m, "SELECT message, crc FROM credentials WHERE user_id=?", userID)
}

// PutCredentials stores them.
func (tx *Tx) PutCredentials(m *commandv1.Credentials) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	return tx.write("INSERT INTO credentials (user_id, crc, message) VALUES (?, ?, ?) ON CONFLICT (user_id) DO UPDATE SET crc=excluded.crc, message=excluded.message",
		m.GetUserId(), checksum(b), b)
}

// ForgetCredentials removes them.
func (tx *Tx) ForgetCredentials(userID string) error {
	return tx.write("DELETE FROM credentials WHERE user_id=?", userID)
}

// SealUsed reports whether what was sealed to a key has counted before.
func (tx *Tx) SealUsed(keyID string, seal []byte) (used bool, err error) {
	err = tx.first("SELECT 1 FROM seals WHERE key_id=? AND seal=?", func(*sqlite.Stmt) error {
		used = true
		return nil
	}, keyID, seal)
	return used, ignoreMissing(err)
}

// UseSeal notes that what was sealed to a key has counted.
func (tx *Tx) UseSeal(keyID string, seal []byte) error {
	return tx.write("INSERT INTO seals (key_id, seal) VALUES (?, ?)", keyID, seal)
}

// ForgetSeals forgets what was sealed to a key that opens nothing any more.
func (tx *Tx) ForgetSeals(keyID string) error {
	return tx.write("DELETE FROM seals WHERE key_id=?", keyID)
}
