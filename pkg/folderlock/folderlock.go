// Package folderlock keeps a data folder for one process.
package folderlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Name is the file in a folder that is locked while a process works there. It holds the pid of the last one that did.
const Name = "lock"

// Lock is held until Release, or until the process dies.
type Lock struct{ file *os.File }

// Take makes the folder when it is missing, and locks it. One that is in use is refused, naming the process that has it.
func Take(folder string) (*Lock, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(folder, Name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock the data folder %s: %w", folder, err)
		}
		holder, _ := os.ReadFile(file.Name())
		return nil, fmt.Errorf("the data folder %s is in use by the process with pid %s; stop that one, or give this one a folder of its own",
			folder, strings.TrimSpace(string(holder)))
	}
	l := &Lock{file}
	if err := file.Truncate(0); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	if _, err := file.WriteAt(fmt.Appendln(nil, os.Getpid()), 0); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

// Release unlocks before it closes: a process that is being forked has the file open until it runs its own program.
func (l *Lock) Release() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}

// Fd is the locked file's descriptor.
func (l *Lock) Fd() uintptr { return l.file.Fd() }
