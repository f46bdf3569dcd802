package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// stateFile keeps a host's state as DIR/ID.json, replaced atomically, under an advisory lock on DIR/ID.lock. It is not
// synced: a simulated host outlives every process, and no power cut.
type stateFile struct {
	dir, id string
	written []byte      // what the state in memory was read from or written as
	info    fs.FileInfo // of the file at that time
}

func (f *stateFile) path() string { return filepath.Join(f.dir, f.id+".json") }

// lock waits for the host's lock, which is never held across anything but reading and writing the file.
func (f *stateFile) lock() (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(f.dir, f.id+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", file.Name(), err), file.Close())
	}
	return func() { file.Close() }, nil
}

// read returns the state in the file: the one that is in memory when nobody has written since.
func (f *stateFile) read(current *state) (*state, error) {
	info, err := os.Stat(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return current, nil
	}
	if err != nil {
		return nil, err
	}
	if f.info != nil && os.SameFile(f.info, info) && f.info.ModTime().Equal(info.ModTime()) {
		return current, nil
	}
	data, err := os.ReadFile(f.path())
	if err != nil {
		return nil, err
	}
	s := newState()
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", f.path(), err)
	}
	f.written, f.info = data, info
	return s, nil
}

// write replaces the file unless it says the same already.
func (f *stateFile) write(s *state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if bytes.Equal(data, f.written) {
		return nil
	}
	f.info = nil // until the file is there, what is in memory counts for nothing
	next := f.path() + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	if err := os.Rename(next, f.path()); err != nil {
		return err
	}
	info, err := os.Stat(f.path())
	if err != nil {
		return err
	}
	f.written, f.info = data, info
	return nil
}
