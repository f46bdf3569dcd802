package etcdstore

import (
	"errors"
	"fmt"

	"github.com/naru-project/naru/federation/link"
)

var (
	// ErrFenced: the ownership under which a transaction was begun is gone. The outcome of what was under way is to be
	// looked up by the next owner.
	ErrFenced = errors.New("ownership is gone")
	// ErrConflict: something that the transaction read has moved; nothing was written. See ConflictError.
	ErrConflict = errors.New("what was read has moved")
	// ErrUnknown: the caller stopped waiting; the transaction may have taken effect or may yet.
	ErrUnknown = errors.New("outcome unknown")
	// ErrTooLarge: the transaction has more operations or bytes than one transaction carries.
	ErrTooLarge = errors.New("transaction is too large")
	// ErrFull: the store's quota is used up.
	ErrFull = errors.New("etcd has no space left")
	// ErrNotFound: there is no such key.
	ErrNotFound = errors.New("not found")
	// ErrOldEpoch, ErrQuarantine and ErrGap are the link's words for numbers that are not taken.
	ErrOldEpoch   = link.ErrOldEpoch
	ErrQuarantine = link.ErrQuarantine
	ErrGap        = link.ErrGap
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
)

// ConflictError names the key that has moved. It is an ErrConflict.
type ConflictError struct {
	Key string
	// Want and Have are modification revisions; 0 is an absent key.
	Want, Have int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s has moved: revision %d was read, %d is there", e.Key, e.Want, e.Have)
}

func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// DecodeError names a key whose value is not the message it should be.
type DecodeError struct {
	Key string
	Err error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("value of %s does not decode: %v", e.Key, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }
