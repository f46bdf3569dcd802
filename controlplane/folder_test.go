package controlplane

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// onDisk are the paths below a folder.
func onDisk(t *testing.T, folder string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func put(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFolderOfAnotherProgramIsRefusedByNameAndLeftAsItIs(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	verbs := map[string]func(c *Config) error{
		"init": func(c *Config) error { return Init(c, log, "naru.test", filepath.Join(t.TempDir(), "admin")) },
		"join": func(c *Config) error {
			_, err := openNew(c, log)
			return err
		},
		"run": func(c *Config) error {
			_, err := New(c, log)
			return err
		},
		"admin": func(c *Config) error {
			return Admin(context.Background(), c, log, "anna", filepath.Join(t.TempDir(), "out"))
		},
		"restore": func(c *Config) error { return Restore(c, log, "no.backup") },
	}
	for verb, do := range verbs {
		c := &Config{Data: t.TempDir()}
		put(t, filepath.Join(c.Data, "keys", "link.key"), filepath.Join(c.Data, "store", "lock"))
		before := onDisk(t, c.Data)
		err := do(c)
		if err == nil {
			t.Errorf("%s took an agent's folder", verb)
			continue
		}
		want := []string{c.Data, "store", "keys/link.key", "an empty one"}
		if verb == "restore" {
			want = []string{c.Data, "copy the folder keys"}
		}
		for _, word := range want {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s does not say %q: %v", verb, word, err)
			}
		}
		if strings.Contains(err.Error(), "naru-controlplane init") {
			t.Errorf("%s sends an agent's folder to init: %v", verb, err)
		}
		if after := onDisk(t, c.Data); !slices.Equal(before, after) {
			t.Errorf("%s left behind: %v, before it %v", verb, after, before)
		}
	}
}

func TestAnEmptyFolderIsBegunAndOneThatAFailedAttemptHasLeft(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for about, left := range map[string][]string{"missing": nil, "of a volume": {"lost+found"}} {
		c := &Config{Data: filepath.Join(t.TempDir(), "data")}
		for _, folder := range left {
			if err := os.MkdirAll(filepath.Join(c.Data, folder), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := New(c, log); err == nil || !strings.Contains(err.Error(), "naru-controlplane init") {
			t.Errorf("%s: run before init: %v", about, err)
		}
		if _, err := os.Stat(c.keys()); !os.IsNotExist(err) {
			t.Errorf("%s: run before init makes keys", about)
		}
		if _, err := openNew(c, log); err != nil { // as a join does that is then refused
			t.Fatal(err)
		}
		if err := Init(c, log, "naru.test", filepath.Join(t.TempDir(), "admin")); err != nil {
			t.Errorf("%s: %v", about, err)
		}
		if err := Init(c, log, "naru.test", filepath.Join(t.TempDir(), "admin")); err == nil || !strings.Contains(err.Error(), "belongs to federation naru.test already") {
			t.Errorf("%s: begun twice: %v", about, err)
		}
	}
}
