package zonehub

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestWhyASessionEndedIsToldWithoutTheWordsOfGRPC(t *testing.T) {
	ended := errors.New("the stream ended")
	for want, why := range map[string]error{
		"the stream ended: the agent's stream ended: it hung up": fmt.Errorf("%w: %w", ended, status.Error(codes.Unavailable, "the agent's stream ended: it hung up")),
		"the stream through the broker broke off":                fmt.Errorf("%w: %w", ended, status.Error(codes.Unavailable, "error reading from server: read tcp: connection reset by peer")),
		"nothing was heard for 15s":                              errors.New("nothing was heard for 15s"),
	} {
		if got := inWords(why); got != want {
			t.Errorf("%v is told as %q, not %q", why, got, want)
		}
	}
	for _, why := range []error{context.Canceled, status.Error(codes.Canceled, "context canceled")} {
		if got := inWords(why); got != "the stream through the broker broke off" {
			t.Errorf("%v is told as %q", why, got)
		}
	}
}
