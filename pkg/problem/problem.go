// Package problem holds the errors of the whole system: a stable code, a sentence that says what exactly went wrong,
// and one that says what to do next (RFC 9457). An error travels as its Problem message, whatever carries it.
package problem

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Error is a Problem as a Go error.
type Error struct {
	Problem *apiv1.Problem
	cause   error
	plain   bool
}

// New makes an error. The title comes from the table of codes; detail names the things concerned, next says what to do.
func New(code Code, detail, next string) *Error {
	return &Error{Problem: &apiv1.Problem{Code: string(code), Title: code.entry().title, Detail: detail, Next: next}}
}

// Newf is New with a formatted detail.
func Newf(code Code, next, format string, a ...any) *Error {
	err := fmt.Errorf(format, a...)
	e := New(code, err.Error(), next)
	e.cause = errors.Unwrap(err)
	return e
}

// With adds what is wrong with one field.
func (e *Error) With(field, detail string) *Error {
	e.Problem.Errors = append(e.Problem.Errors, &apiv1.FieldProblem{Field: field, Detail: detail})
	return e
}

// Plain says of a problem that it tells of no zone, so that it is shown whole wherever the caller is. The mark stays in the process.
func Plain(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return &Error{Problem: e.Problem, cause: err, plain: true}
}

// IsPlain reports whether err was said to tell of no zone.
func IsPlain(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.plain
}

// Code returns the error's code.
func (e *Error) Code() Code { return Code(e.Problem.GetCode()) }

// Error returns title and detail.
func (e *Error) Error() string {
	s := e.Problem.GetTitle()
	if d := e.Problem.GetDetail(); d != "" {
		s += ": " + d
	}
	return s
}

// Explain returns what a program says of an error at its end: the error, and what to do next on a line of its own.
func Explain(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Problem.GetNext() != "" {
		return err.Error() + "\n  " + e.Problem.GetNext()
	}
	return err.Error()
}

// Unwrap returns the cause, if any.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus lets a gRPC server answer with the error as it is.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(GRPCCode(e.Code()), e.Error())
	if with, err := st.WithDetails(e.Problem); err == nil {
		return with
	}
	return st
}

// Is reports whether err is, or wraps, an error of the code.
func Is(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code() == code
}

// Of returns err as a Problem; nil for nil. An error that is none of ours becomes INTERNAL, and its text stays inside.
func Of(err error) *apiv1.Problem {
	if err == nil {
		return nil
	}
	return From(err).Problem
}

// From returns err as an Error. An error that is none of ours becomes INTERNAL with err as its cause.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.OK && st.Code() != codes.Unknown {
		return fromStatus(st, err)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e = New(Timeout, "the deadline passed before it was done", "Try again; with the same Idempotency-Key nothing is done twice.")
	case errors.Is(err, context.Canceled):
		e = New(Cancelled, "the caller went away", "")
	default:
		e = New(Internal, "the log has more under the trace id", "Try again; if it stays, show an operator the trace id.")
	}
	e.cause = err
	return e
}

// FromProto returns p as an error; nil for nil.
func FromProto(p *apiv1.Problem) error {
	if p == nil {
		return nil
	}
	return &Error{Problem: proto.CloneOf(p)}
}

// ToStatus returns err as a gRPC status error that carries its Problem; nil for nil.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	return From(err).GRPCStatus().Err()
}

// FromStatus returns a gRPC error as an Error; nil for nil.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	return From(err)
}

// byStatus is what a bare gRPC code of a library becomes.
var byStatus = map[codes.Code]Code{
	codes.InvalidArgument: Invalid, codes.NotFound: NotFound, codes.AlreadyExists: NameTaken, codes.Aborted: Conflict,
	codes.FailedPrecondition: WrongState, codes.Unauthenticated: Unauthenticated, codes.PermissionDenied: Forbidden,
	codes.ResourceExhausted: TooMany, codes.OutOfRange: Gone, codes.Unimplemented: Unsupported,
	codes.Unavailable: Unavailable, codes.DeadlineExceeded: Timeout, codes.Canceled: Cancelled,
}

func fromStatus(st *status.Status, cause error) *Error {
	for _, d := range st.Details() {
		if p, ok := d.(*apiv1.Problem); ok {
			return &Error{Problem: p, cause: cause}
		}
	}
	code, ok := byStatus[st.Code()]
	if !ok {
		return &Error{Problem: New(Internal, "the log has more under the trace id", "Try again; if it stays, show an operator the trace id.").Problem, cause: cause}
	}
	return &Error{Problem: New(code, st.Message(), "").Problem, cause: cause}
}
