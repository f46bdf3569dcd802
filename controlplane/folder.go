package controlplane

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/naru-project/naru/controlplane/internal/identity"
)

// openNew opens the key folder of a server that is to begin or to join a federation. Nothing is made in a data folder that
// holds what is not a server's.
func openNew(c *Config, log *slog.Logger) (*identity.Keeper, error) {
	if certified, err := c.certified(); err != nil {
		return nil, err
	} else if !certified {
		if err := c.checkEmpty(); err != nil {
			return nil, err
		}
	}
	return openKeeper(c, log)
}

// openOwn opens the key folder of a server that belongs to a federation. Nothing is made in another folder.
func openOwn(c *Config, log *slog.Logger) (*identity.Keeper, error) {
	missing := fmt.Errorf("%s belongs to no federation yet: begin one with naru-controlplane init, or join one with naru-controlplane join", c.Data)
	certified, err := c.certified()
	if err != nil {
		return nil, err
	}
	if !certified {
		if err := c.checkEmpty(); err != nil {
			return nil, err
		}
		return nil, missing
	}
	keeper, err := openKeeper(c, log)
	if err != nil {
		return nil, err
	}
	if !keeper.Ready() {
		return nil, missing
	}
	return keeper, nil
}

// certified reports whether the data folder has a server's certificate.
func (c *Config) certified() (bool, error) {
	_, err := os.Stat(filepath.Join(c.keys(), "server.crt"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// checkEmpty refuses a data folder that holds more than what an init or a join that failed has left.
func (c *Config) checkEmpty() error {
	there, err := names(c.Data, "keys", "lost+found")
	if err != nil {
		return err
	}
	keys, err := names(c.keys(), "server.key", "sealing.key")
	if err != nil {
		return err
	}
	for _, key := range keys {
		there = append(there, filepath.Join("keys", key))
	}
	if len(there) == 0 {
		return nil
	}
	const most = 4
	if more := len(there) - most; more > 0 {
		there = append(there[:most], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%s is not empty and has no keys of a server: it holds %s; set data to a server's folder, or to an empty one to begin or join a federation with",
		c.Data, strings.Join(there, ", "))
}

// names returns what is in a folder, but for some; nothing where there is no folder.
func names(folder string, but ...string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if !slices.Contains(but, e.Name()) {
			all = append(all, e.Name())
		}
	}
	return all, nil
}
