package raftlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/raft-wal/types"
)

const metaName = "meta"

// meta is the file that says which segments make up the log, and holds Raft's term and vote: a CRC32C in hexadecimal, a line
// break, JSON. It is small and seldom written, so each change replaces it whole (write, sync, rename, sync the folder).
// The library's own store for this keeps no checksums: a flipped bit in a vote would be a second vote.
//
// It implements types.MetaStore; all methods may be called concurrently.
type meta struct {
	dir    string
	commit func(path string, content []byte) error // writeSynced; tests put in one that fails

	mu    sync.Mutex
	state metaState
}

type metaState struct {
	Log    types.PersistentState `json:"log"`
	Stable map[string][]byte     `json:"stable"`
}

// openMeta reads the folder's file; a folder without a log gets an empty one.
func openMeta(dir string) (*meta, error) {
	m := &meta{dir: dir, commit: writeSynced, state: metaState{Stable: map[string][]byte{}}}
	raw, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, fs.ErrNotExist) {
		// The file is written before the first segment, and raft-wal deletes segments that it does not know.
		if left, _ := filepath.Glob(filepath.Join(dir, "*.wal")); len(left) > 0 {
			return nil, fmt.Errorf("%w: %s is missing beside its segments", ErrDamaged, filepath.Join(dir, metaName))
		}
		return m, m.replace(m.state)
	}
	if err != nil {
		return nil, err
	}
	sum, body, _ := strings.Cut(string(raw), "\n")
	if want, err := strconv.ParseUint(sum, 16, 32); err != nil || len(sum) != 8 || uint32(want) != crc32.Checksum([]byte(body), castagnoli) {
		return nil, fmt.Errorf("%w: the checksum of %s does not match", ErrDamaged, filepath.Join(dir, metaName))
	}
	if err := json.Unmarshal([]byte(body), &m.state); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Join(dir, metaName), err)
	}
	return m, nil
}

// replace writes state and, once it is durable, takes it over.
func (m *meta) replace(state metaState) error {
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	path := filepath.Join(m.dir, metaName)
	content := fmt.Appendf(nil, "%08x\n%s", crc32.Checksum(body, castagnoli), body)
	if err := m.commit(path+".tmp", content); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	if err := syncFolder(m.dir); err != nil {
		return err
	}
	m.state = state
	return nil
}

// Load implements types.MetaStore.
func (m *meta) Load(string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Log, nil
}

// CommitState implements types.MetaStore. raft-wal writes its own codec's number whatever the codec, and refuses it on
// opening; so ours is put in its place.
func (m *meta) CommitState(s types.PersistentState) error {
	for i := range s.Segments {
		s.Segments[i].Codec = codecID
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.replace(metaState{Log: s, Stable: m.state.Stable})
}

// GetStable implements types.MetaStore.
func (m *meta) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Stable[string(key)], nil
}

// SetStable implements types.MetaStore.
func (m *meta) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	stable := maps.Clone(m.state.Stable)
	if value == nil {
		delete(stable, string(key))
	} else {
		stable[string(key)] = append([]byte(nil), value...)
	}
	return m.replace(metaState{Log: m.state.Log, Stable: stable})
}

// Close implements types.MetaStore. The file outlives one opening of the log; nothing is held open.
func (m *meta) Close() error { return nil }

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
