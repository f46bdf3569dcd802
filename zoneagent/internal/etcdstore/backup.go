package etcdstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

var errExternal = errors.New("the zone's etcd is one of your own (etcd.endpoints): it is backed up and restored with its own tools")

// Backup writes a consistent copy of the store, with its check sum at the end, which has been checked. It asks etcd as a
// client, while this agent runs or does not; a majority has to answer.
func Backup(ctx context.Context, c Config, w io.Writer) error {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return err
	}
	if c.Member == nil {
		return errExternal
	}
	s := &Store{cfg: c, keys: newKeyspace(c.Zone), base: ctx}
	known := (&folder{dir: c.Dir}).endpoints()
	s.endpoints = uniqueSorted(append(append(known, c.Endpoints...), s.clientURL())...)
	if err := s.connect(); err != nil {
		return err
	}
	defer s.client.Close()
	ask, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), c.RequestTimeout)
	defer cancel()
	found, err := s.client.Get(ask, s.keys.of(incarnation), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("the zone's etcd at %s does not answer; a backup is made while the zone's agents run: %w", strings.Join(s.endpoints, ", "), err)
	}
	if len(found.Kvs) == 0 {
		return fmt.Errorf("the etcd at %s holds nothing of zone %s", strings.Join(s.endpoints, ", "), c.Zone)
	}
	r, err := s.client.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	defer r.Close()
	checked := &checkedWriter{to: w, sum: sha256.New()}
	if _, err := io.Copy(checked, r); err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	if !checked.whole() {
		return errors.New("back up etcd: what came is cut short or damaged; try again")
	}
	return nil
}

// checkedWriter passes on what ends with its own check sum.
type checkedWriter struct {
	to   io.Writer
	sum  hash.Hash
	tail []byte // what may be the check sum
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	c.tail = append(c.tail, p...)
	if body := len(c.tail) - sha256.Size; body > 0 {
		c.sum.Write(c.tail[:body])
		c.tail = append(c.tail[:0], c.tail[body:]...)
	}
	return c.to.Write(p)
}

func (c *checkedWriter) whole() bool { return bytes.Equal(c.sum.Sum(nil), c.tail) }

// Restore fills the empty folder of an agent from a backup, as the only member of a new cluster. Open finds then that
// the store was replaced, and mints a new incarnation. What only counts in a running cluster is left out: the present
// incarnation, elections, roles, and orders, which may have been carried out since.
func Restore(ctx context.Context, c Config, r io.Reader) error {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return err
	}
	if c.Member == nil {
		return errExternal
	}
	f, err := openFolder(c.Dir, c.Zone, c.Agent)
	if err != nil {
		return err
	}
	defer f.close()
	keys := newKeyspace(c.Zone)
	if err := member.Restore(ctx, c.member(f.member(), nil), r, func(key string) bool {
		p, ok := keys.parse(key)
		return ok && p.Space != incarnation && p.Space != elections && p.Space != roles && p.Space != Order
	}); err != nil {
		return err
	}
	return f.setEndpoints([]string{member.ClientURL(c.Member.Client, c.TLS)})
}

// ForgetMembers makes this agent's member, which is stopped, the only one of the zone's etcd: the way out when a majority
// of the members is lost for good. The store goes on from what this one has, in a new incarnation.
func ForgetMembers(ctx context.Context, c Config) error {
	if c.Member == nil {
		return errExternal
	}
	if dir := (&folder{dir: c.Dir}).member(); !member.HasData(dir) {
		return fmt.Errorf("this agent has no member of the zone's etcd in %s: do it at an agent that has one, or restore a backup", dir)
	}
	alone := *c.Member
	alone.forget = true
	c.Member, c.Endpoints = &alone, nil
	s, err := Open(ctx, c)
	if err != nil {
		return err
	}
	return s.Close()
}
