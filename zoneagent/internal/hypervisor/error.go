package hypervisor

import "errors"

var (
	// ErrNotDefined: the host does not know the VM; EnsureDefined first.
	ErrNotDefined = errors.New("vm is not defined on this host")
	// ErrNotRunning: the VM is not on.
	ErrNotRunning = errors.New("vm is not running")
	// ErrNeedsOff: what was asked can be done only while the VM is off.
	ErrNeedsOff = errors.New("vm is on, and has to be off for it")
	// ErrNoSnapshot: the VM has no such snapshot.
	ErrNoSnapshot = errors.New("vm has no such snapshot on this host")
)

// Fatal marks an error that no retry can mend: the request itself, or the way the host is set up, has to change first.
// Fatal(nil) is nil.
func Fatal(err error) error {
	if err == nil || IsFatal(err) {
		return err
	}
	return &fatalError{cause: err}
}

// IsFatal reports whether Fatal marked the error or one that it wraps.
func IsFatal(err error) bool {
	var fatal *fatalError
	return errors.As(err, &fatal)
}

type fatalError struct{ cause error }

func (e *fatalError) Error() string { return e.cause.Error() }
func (e *fatalError) Unwrap() error { return e.cause }
