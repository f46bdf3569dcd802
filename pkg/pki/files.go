package pki

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const maxFile = 1 << 20

// readPrivate reads a file that nobody but its owner may touch. A file that is not there is fs.ErrNotExist.
func readPrivate(dir *os.Root, name string) ([]byte, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir.Name(), name)
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %04o): take that away with chmod 600, and replace the key if others had access", path, info.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%s is larger than a key or a chain can be", path)
	}
	return raw, nil
}

// writePrivate replaces a file as a whole, with mode 0600, and returns when that is on disk: after a crash there is the
// old file or the new one.
func writePrivate(dir *os.Root, name string, content []byte) (err error) {
	suffix := make([]byte, 8)
	rand.Read(suffix) // never fails
	temporary := "." + name + "." + hex.EncodeToString(suffix)
	f, err := dir.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignore(dir.Remove(temporary), fs.ErrNotExist))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := dir.Rename(temporary, name); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}
