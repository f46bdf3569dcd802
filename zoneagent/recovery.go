package zoneagent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// BackUp writes a copy of the zone's store to a new file, which appears when it is whole, and returns its size.
func BackUp(ctx context.Context, c *Config, log *slog.Logger, file string) (size int64, err error) {
	store, err := recoveryConfig(c, log)
	if err != nil {
		return 0, err
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return 0, errors.Join(fmt.Errorf("%s exists already: choose another name", file), err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := etcdstore.Backup(ctx, store, f); err != nil {
		return 0, err
	}
	about, err := f.Stat()
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	return about.Size(), os.Rename(f.Name(), file)
}

// Restore fills the store of this agent, which is stopped and has none any more, from a backup.
func Restore(ctx context.Context, c *Config, log *slog.Logger, file string) error {
	store, err := recoveryConfig(c, log)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := etcdstore.Restore(ctx, store, f); err != nil {
		return err
	}
	return c.standAlone()
}

// ForgetMembers makes the etcd member of this agent, which is stopped, the only one of the zone.
func ForgetMembers(ctx context.Context, c *Config, log *slog.Logger) error {
	store, err := recoveryConfig(c, log)
	if err != nil {
		return err
	}
	if err := etcdstore.ForgetMembers(ctx, store); err != nil {
		return err
	}
	return c.standAlone()
}

// standAlone has the agent look for etcd nowhere but at itself when it starts.
func (c *Config) standAlone() error {
	kept, err := c.keptEndpoints()
	if err != nil || len(kept) == 0 {
		return err
	}
	return c.keepEndpoints([]string{"https://" + c.Etcd.ClientAddress})
}

func recoveryConfig(c *Config, log *slog.Logger) (etcdstore.Config, error) {
	i, err := zoneIdentity(c, log)
	if err != nil {
		return etcdstore.Config{}, err
	}
	endpoints, err := c.keptEndpoints()
	return storeConfig(c, i, endpoints, log), err
}
