package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

// Backup writes a consistent copy of the store, with its check sum at the end.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	r, err := s.client.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	return nil
}

// Restore fills the empty folder of an agent from a backup, as the only member of a new cluster. Open finds then that
// the store was replaced, and mints a new incarnation. What only counts in a running cluster is left out: the present
// incarnation, elections, roles.
func Restore(ctx context.Context, c Config, r io.Reader) error {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return err
	}
	if c.Member == nil {
		return errors.New("an external etcd is restored with its own tools")
	}
	f, err := openFolder(c.Dir, c.Zone, c.Agent)
	if err != nil {
		return err
	}
	defer f.close()
	keys := newKeyspace(c.Zone)
	return member.Restore(ctx, c.member(f.member(), nil), r, func(key string) bool {
		p, ok := keys.parse(key)
		return ok && p.Space != incarnation && p.Space != elections && p.Space != roles
	})
}
