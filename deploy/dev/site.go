package dev

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Mode is how the networks are kept apart.
type Mode string

const (
	// Namespaces: network namespaces, as root.
	Namespaces Mode = "namespaces"
	// UserNamespaces: the same inside an unprivileged user namespace.
	UserNamespaces Mode = "user-namespaces"
	// Loopback: nothing is separated, and simulated hosts only.
	Loopback Mode = "loopback"
)

// Site is one running federation under a folder. Its fields are what site.json holds.
type Site struct {
	Mode      Mode             `json:"mode"`
	Networks  []NetworkState   `json:"networks"`
	Processes []ProcessState   `json:"processes"`
	Walk      *WalkResult      `json:"walk,omitempty"`
	Anchor    *ProcessIdentity `json:"anchor,omitempty"`

	dir string
	bin string
	mu  sync.Mutex
	say *Story
}

// NetworkState is where a network's API is reached from this machine, and the configuration with which `naru` reaches it.
type NetworkState struct {
	Name      string `json:"name"`
	API       string `json:"api"`
	CLIConfig string `json:"cli_config"`
}

// ProcessState is a process of the site that was started, and may have ended since.
type ProcessState struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
}

// folders of a site.
var folders = []string{"run", "log", "cli", "config", "data", "cache"}

// New returns a site under dir that is not up yet, with the programs in bin. The folder is to be claimed by who calls.
func New(dir, bin string, mode Mode, say *Story) (*Site, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, sub := range folders {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	s := &Site{Mode: mode, dir: dir, bin: bin, say: say}
	if mode == UserNamespaces && Inside() {
		me, err := identify(os.Getpid())
		if err != nil {
			return nil, err
		}
		s.Anchor = &me
	}
	return s, nil
}

// Open returns the site that stands under dir.
func Open(dir, bin string) (*Site, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "site.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, notUp(dir)
	}
	if err != nil {
		return nil, err
	}
	s := &Site{dir: dir, bin: bin, say: NewStory(os.Stderr)}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s/site.json: %w", dir, err)
	}
	return s, nil
}

// JSON returns the site as site.json has it, with the processes that live now.
func (s *Site) JSON() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Processes = s.Running()
	return json.MarshalIndent(s, "", "  ")
}

// save writes site.json, which appears whole.
func (s *Site) save() error {
	b, err := s.JSON()
	if err != nil {
		return err
	}
	return writeFile(s.path("site.json"), append(b, '\n'))
}

// Dir returns the site's folder.
func (s *Site) Dir() string { return s.dir }

// path returns a path under the site's folder.
func (s *Site) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// prefix begins the names of this site's namespaces: sites under other folders have others.
func (s *Site) prefix() string {
	h := sha256.Sum256([]byte(s.dir))
	return "naru-" + hex.EncodeToString(h[:3]) + "-"
}

// program returns the path of one of the built programs.
func (s *Site) program(name string) string { return filepath.Join(s.bin, name) }

// writeFile writes a file that appears whole.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
