package problem

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// Code names a kind of error. It never changes and is never translated.
type Code string

// The codes of the whole system. What each becomes at an edge stands in one table, below.
const (
	Invalid             Code = "INVALID"
	NotFound            Code = "NOT_FOUND"
	NameTaken           Code = "NAME_TAKEN"
	InUse               Code = "IN_USE"
	Conflict            Code = "CONFLICT"
	WrongState          Code = "WRONG_STATE"
	IdempotencyMismatch Code = "IDEMPOTENCY_MISMATCH"
	Unauthenticated     Code = "UNAUTHENTICATED"
	Forbidden           Code = "FORBIDDEN"
	CodeNeeded          Code = "CODE_NEEDED"
	MustChangePassword  Code = "MUST_CHANGE_PASSWORD"
	NoHostFits          Code = "NO_HOST_FITS"
	NoAddress           Code = "NO_ADDRESS"
	QuotaExceeded       Code = "QUOTA_EXCEEDED"
	GradeForbids        Code = "GRADE_FORBIDS"
	TooLarge            Code = "TOO_LARGE"
	TooMany             Code = "TOO_MANY"
	Gone                Code = "GONE"
	Contradiction       Code = "CONTRADICTION"
	UnsupportedMedia    Code = "UNSUPPORTED_MEDIA"
	Unsupported         Code = "UNSUPPORTED"
	MethodNotAllowed    Code = "METHOD_NOT_ALLOWED"
	TokenInvalid        Code = "TOKEN_INVALID"
	TokenUsed           Code = "TOKEN_USED"
	TokenExpired        Code = "TOKEN_EXPIRED"
	CertificateInvalid  Code = "CERTIFICATE_INVALID"
	Revoked             Code = "REVOKED"
	ZoneUnavailable     Code = "ZONE_UNAVAILABLE"
	LinkDown            Code = "LINK_DOWN"
	Refused             Code = "REFUSED_BY_BROKER"
	Unavailable         Code = "UNAVAILABLE"
	Timeout             Code = "TIMEOUT"
	Cancelled           Code = "CANCELLED"
	DriverFailed        Code = "DRIVER_FAILED"
	StorePressed        Code = "STORE_PRESSED"
	NotDelivered        Code = "NOT_DELIVERED"
	Internal            Code = "INTERNAL"
)

// Exit codes of the command line.
const (
	ExitRefused     = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitNotAllowed  = 4
	ExitConflict    = 5
	ExitUnavailable = 6
	ExitTimeout     = 7
)

type entry struct {
	title string
	http  int
	grpc  codes.Code
	exit  int
}

// table is the only place where a code meets HTTP, gRPC and the command line.
var table = map[Code]entry{
	Invalid:             {"The request is not valid", http.StatusBadRequest, codes.InvalidArgument, ExitUsage},
	NotFound:            {"Not found", http.StatusNotFound, codes.NotFound, ExitNotFound},
	NameTaken:           {"The name is taken", http.StatusConflict, codes.AlreadyExists, ExitConflict},
	InUse:               {"Something still depends on it", http.StatusConflict, codes.FailedPrecondition, ExitConflict},
	Conflict:            {"It was changed meanwhile", http.StatusPreconditionFailed, codes.Aborted, ExitConflict},
	WrongState:          {"Not possible in its present state", http.StatusConflict, codes.FailedPrecondition, ExitConflict},
	IdempotencyMismatch: {"The idempotency key was used for another request", http.StatusUnprocessableEntity, codes.InvalidArgument, ExitConflict},
	Unauthenticated:     {"Not signed in", http.StatusUnauthorized, codes.Unauthenticated, ExitNotAllowed},
	Forbidden:           {"Not allowed", http.StatusForbidden, codes.PermissionDenied, ExitNotAllowed},
	CodeNeeded:          {"A code is needed", http.StatusUnauthorized, codes.Unauthenticated, ExitNotAllowed},
	MustChangePassword:  {"The password has to be changed", http.StatusForbidden, codes.PermissionDenied, ExitNotAllowed},
	NoHostFits:          {"No host fits this VM", http.StatusConflict, codes.FailedPrecondition, ExitRefused},
	NoAddress:           {"No address is free", http.StatusConflict, codes.FailedPrecondition, ExitRefused},
	QuotaExceeded:       {"The quota is used up", http.StatusForbidden, codes.ResourceExhausted, ExitRefused},
	GradeForbids:        {"The grade forbids it", http.StatusConflict, codes.FailedPrecondition, ExitRefused},
	TooLarge:            {"The request is too large", http.StatusRequestEntityTooLarge, codes.InvalidArgument, ExitRefused},
	TooMany:             {"Too many requests", http.StatusTooManyRequests, codes.ResourceExhausted, ExitUnavailable},
	Contradiction:       {"It contradicts what is known", http.StatusConflict, codes.FailedPrecondition, ExitConflict},
	UnsupportedMedia:    {"The content type is not understood", http.StatusUnsupportedMediaType, codes.InvalidArgument, ExitUsage},
	Gone:                {"The revision is no longer kept", http.StatusGone, codes.OutOfRange, ExitConflict},
	Unsupported:         {"Not supported here", http.StatusNotImplemented, codes.Unimplemented, ExitRefused},
	MethodNotAllowed:    {"The method is not allowed on this path", http.StatusMethodNotAllowed, codes.Unimplemented, ExitRefused},
	TokenInvalid:        {"The token is not valid", http.StatusUnauthorized, codes.Unauthenticated, ExitNotAllowed},
	TokenUsed:           {"The token has been used", http.StatusUnauthorized, codes.Unauthenticated, ExitNotAllowed},
	TokenExpired:        {"The token has expired", http.StatusUnauthorized, codes.Unauthenticated, ExitNotAllowed},
	CertificateInvalid:  {"The certificate is not accepted", http.StatusUnauthorized, codes.Unauthenticated, ExitNotAllowed},
	Revoked:             {"It has been revoked", http.StatusForbidden, codes.PermissionDenied, ExitNotAllowed},
	ZoneUnavailable:     {"The zone cannot take this now", http.StatusConflict, codes.FailedPrecondition, ExitUnavailable},
	LinkDown:            {"The link to the control plane is down", http.StatusServiceUnavailable, codes.Unavailable, ExitUnavailable},
	Refused:             {"The broker refused the message", http.StatusForbidden, codes.PermissionDenied, ExitNotAllowed},
	Unavailable:         {"Not available now", http.StatusServiceUnavailable, codes.Unavailable, ExitUnavailable},
	Timeout:             {"It took too long", http.StatusGatewayTimeout, codes.DeadlineExceeded, ExitTimeout},
	Cancelled:           {"It was cancelled", 499, codes.Canceled, ExitTimeout},
	DriverFailed:        {"The hypervisor refused", http.StatusBadGateway, codes.FailedPrecondition, ExitRefused},
	StorePressed:        {"The zone's store is nearly full", http.StatusInsufficientStorage, codes.ResourceExhausted, ExitUnavailable},
	NotDelivered:        {"It could not be delivered", http.StatusBadGateway, codes.FailedPrecondition, ExitRefused},
	Internal:            {"Something went wrong inside", http.StatusInternalServerError, codes.Internal, ExitRefused},
}

func (c Code) entry() entry {
	if e, ok := table[c]; ok {
		return e
	}
	return table[Internal]
}

// OfRights reports whether a code says that somebody was not let in, or has no right to what they asked for.
func (c Code) OfRights() bool {
	switch c {
	case Unauthenticated, Forbidden, TokenInvalid, TokenUsed, TokenExpired, CertificateInvalid, Revoked:
		return true
	}
	return false
}

// HTTPStatus returns the HTTP status of a code; that of Internal for one that is not in the table.
func HTTPStatus(c Code) int { return c.entry().http }

// GRPCCode returns the canonical gRPC code of a code.
func GRPCCode(c Code) codes.Code { return c.entry().grpc }

// ExitCode returns with what the command line ends on a code.
func ExitCode(c Code) int { return c.entry().exit }
