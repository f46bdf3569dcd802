package state

import (
	"errors"
	"fmt"

	"zombiezen.com/go/sqlite"
)

var (
	// ErrNotFound says that no row has the id or name.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous says that a name without its whole scope belongs to more than one noun.
	ErrAmbiguous = errors.New("the name belongs to more than one")
	// ErrCompacted says that changes since the revision are no longer all kept: list again.
	ErrCompacted = errors.New("the revision is no longer kept")
	// ErrRetry ends a read whose file was replaced by a restored one under it.
	ErrRetry = errors.New("the state was restored meanwhile, read again")
	// ErrTooLong ends a read that held its snapshot for longer than readLimit.
	ErrTooLong = errors.New("the read took too long")
	// ErrClosed says that the database has been closed.
	ErrClosed = errors.New("the state database is closed")
	// ErrCorrupt is fatal: a checksum does not fit, or the disk failed. The process has to stop; nothing was skipped.
	ErrCorrupt = errors.New("the state database is damaged or its disk failed")
	// ErrForeign is fatal: the file belongs to another server or federation, or to a newer version.
	ErrForeign = errors.New("the state database is not this server's")

	errFull     = errors.New("the disk is full")
	errReadOnly = errors.New("the transaction only reads")
)

// classify gives an error of SQLite its meaning here. Every statement's error passes through it once.
func classify(err error) error {
	if err == nil {
		return nil
	}
	code := sqlite.ErrCode(err)
	switch {
	case code == sqlite.ResultIOErrSHMSize, code.ToPrimary() == sqlite.ResultFull:
		// The shared-memory file of the WAL is grown by writing; a disk without space shows as SHMSIZE there.
		return fmt.Errorf("%w: %w", errFull, err)
	case code.ToPrimary() == sqlite.ResultIOErr, code.ToPrimary() == sqlite.ResultCorrupt, code.ToPrimary() == sqlite.ResultNotADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// isInterrupt reports whether err is SQLite's answer to an interrupt.
func isInterrupt(err error) bool {
	return err != nil && sqlite.ErrCode(err).ToPrimary() == sqlite.ResultInterrupt
}
