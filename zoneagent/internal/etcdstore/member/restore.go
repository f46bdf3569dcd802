package member

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// Restore fills the empty folder of a member from a backup (the stream of etcd's snapshot call, its SHA-256 at the
// end), as the only member of a new cluster, and stops it again. What keep refuses and what was bound to a lease is
// left out. Values come back; revisions begin anew.
func Restore(ctx context.Context, c Config, r io.Reader, keep func(key string) bool) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if HasData(c.Dir) {
		return fmt.Errorf("etcd folder %s is not empty: move it away before a backup is restored into it", c.Dir)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("etcd folder: %w", err)
	}
	file := filepath.Join(c.Dir, unfinished)
	if err := receive(file, r); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	c.Join = nil
	m, err := start(c)
	if err != nil {
		return err
	}
	defer m.Close()
	select {
	case <-m.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := refill(ctx, c, file, m, keep); err != nil {
		return fmt.Errorf("restore backup into %s: %w", c.Dir, err)
	}
	return os.Remove(file)
}

// receive writes the database of a backup to file and checks its sum.
func receive(file string, r io.Reader) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := io.Copy(f, r)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	if size%512 != sha256.Size {
		return errors.New("backup is cut short: its check sum is missing")
	}
	size -= sha256.Size
	sum, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, size)); err != nil {
		return err
	}
	if _, err := f.ReadAt(want, size); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return errors.New("backup is damaged: its check sum is wrong")
	}
	return errors.Join(f.Truncate(size), f.Sync())
}

// refill copies all live keys of the database file into the member.
func refill(ctx context.Context, c Config, file string, m *Member, keep func(string) bool) error {
	log := zapLogger(c.Logger)
	b := backend.NewDefaultBackend(log, file)
	defer b.Close()
	kv := mvcc.New(log, b, &lease.FakeLessor{}, mvcc.StoreConfig{})
	defer kv.Close()
	client := m.Direct()
	defer client.Close()

	const page = 128
	kept := 0
	for from := []byte{0}; ; {
		got, err := kv.Range(ctx, from, []byte{}, mvcc.RangeOptions{Limit: page})
		if err != nil {
			return err
		}
		n, err := put(ctx, client, got.KVs, keep)
		if err != nil {
			return err
		}
		if kept += n; len(got.KVs) < page {
			break
		}
		from = append(bytes.Clone(got.KVs[page-1].Key), 0)
	}
	if kept == 0 {
		return fmt.Errorf("the backup holds nothing of zone %s: it is another zone's", c.Cluster)
	}
	return nil
}

// put returns how many keys were kept.
func put(ctx context.Context, client *clientv3.Client, kvs []*mvccpb.KeyValue, keep func(string) bool) (int, error) {
	var ops []clientv3.Op
	for _, kv := range kvs {
		if kv.Lease == 0 && keep(string(kv.Key)) {
			ops = append(ops, clientv3.OpPut(string(kv.Key), string(kv.Value)))
		}
	}
	if len(ops) == 0 {
		return 0, nil
	}
	_, err := client.Txn(ctx).Then(ops...).Commit()
	return len(ops), err
}
