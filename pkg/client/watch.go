package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// Change is one message of a watch.
type Change[M any] struct {
	Type     apiv1.WatchType_Value
	Revision string
	Noun     M
}

// Open opens a watch's stream after a revision; empty begins with all that is there.
type Open[M any] func(ctx context.Context, after string) (func() (Change[M], error), error)

// Watch tells every change of a watch. Where the stream breaks it is opened again after the last revision that was told,
// at whichever server answers; where the changes after that are no longer kept, it begins anew, and what was deleted
// meanwhile is not told. It returns when ctx ends, with its error, when the API refuses, or when tell or broke fails.
// broke is asked whenever the stream broke, with why; it may be nil.
func Watch[M any](ctx context.Context, open Open[M], tell func(Change[M]) error, broke func(error) error) error {
	after := ""
	for wait := firstPause; ; wait = min(2*wait, maxPause) {
		err := once(ctx, open, after, func(ch Change[M]) error {
			after, wait = ch.Revision, firstPause
			return tell(ch)
		})
		var told toldError
		switch {
		case errors.As(err, &told):
			return told.error
		case ctx.Err() != nil:
			return ctx.Err()
		case status.Code(err) == codes.OutOfRange && after != "":
			after = ""
		case !transient(err):
			return err
		}
		if broke != nil {
			if err := broke(err); err != nil {
				return err
			}
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

// toldError is an error of whoever is told, not of the stream.
type toldError struct{ error }

// once tells one stream until it breaks.
func once[M any](ctx context.Context, open Open[M], after string, tell func(Change[M]) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, err := open(ctx, after)
	if err != nil {
		return err
	}
	for {
		ch, err := next()
		if err != nil {
			return err
		}
		if err := tell(ch); err != nil {
			return toldError{err}
		}
	}
}

// Changes adapts a stream of the generated client to Open.
func Changes[R any, M any](stream grpc.ServerStreamingClient[R], err error, read func(*R) Change[M]) (func() (Change[M], error), error) {
	if err != nil {
		return nil, err
	}
	return func() (Change[M], error) {
		m, err := stream.Recv()
		if err != nil {
			return Change[M]{}, err
		}
		return read(m), nil
	}, nil
}

// transient reports whether asking again, perhaps another server, may help. What the API says of itself it means; INTERNAL
// and UNKNOWN without a problem are a connection that broke.
func transient(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	st := status.Convert(err)
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	case codes.Internal, codes.Unknown:
		return len(st.Details()) == 0
	}
	return false
}

// pause waits about as long as said; false when ctx ended.
func pause(ctx context.Context, about time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(about/2 + rand.N(about/2)):
		return true
	}
}
