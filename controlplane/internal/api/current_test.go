package api_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// lookOn begins a watch, reads what it begins with, and returns how it ends.
func lookOn(t *testing.T, c *client.Services) <-chan error {
	t.Helper()
	stream, err := c.VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				ended <- problem.FromStatus(err)
				return
			}
		}
	}()
	return ended
}

// stale asks for what a server has, however old.
func stale(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-naru-consistency", "stale")
}

// TestP12WithoutALeaderNobodyIsLetInWhoMayHaveBeenRevoked: of a session and of a token only the state says that they count, and this server
// hears nothing of it any more. An administrator by certificate goes on looking. How soon that is, live_test says.
func TestP12WithoutALeaderNobodyIsLetInWhoMayHaveBeenRevoked(t *testing.T) {
	f := newFederation(t, 1)
	f.person("kim")
	f.letSee("kim")
	token := f.token("ci", "web", "")
	s := f.logIn("", "kim", ownPassword)
	callers := map[string]*client.Services{
		"a session":     f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(s.Token()))),
		"a token":       f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(token))),
		"a certificate": f.dial(f.tls(f.admin())),
	}
	watches := map[string]<-chan error{}
	list := func(c *client.Services) error {
		_, err := c.VMs.ListVMs(stale(t.Context()), &apiv1.ListVMsRequest{})
		return problem.FromStatus(err)
	}
	for who, c := range callers {
		watches[who] = lookOn(t, c)
		if err := list(c); err != nil {
			t.Fatalf("%s, while there is a leader: %v", who, err)
		}
	}
	f.Leaderless.Store(true)
	defer f.Leaderless.Store(false)
	for _, who := range []string{"a session", "a token"} {
		if err := <-watches[who]; !problem.Is(err, problem.Unavailable) {
			t.Errorf("the watch with %s ended with %v", who, err)
		}
	}
	for _, who := range []string{"a session", "a token"} {
		err := list(callers[who])
		for err == nil && t.Context().Err() == nil { // streams end a little before what is known is too old
			err = list(callers[who])
		}
		if !problem.Is(err, problem.Unavailable) || problem.Of(err).GetNext() == "" {
			t.Errorf("a stale read with %s: %v", who, err)
		}
	}
	if err := list(callers["a certificate"]); err != nil {
		t.Errorf("a stale read with a certificate: %v", err)
	}
	select {
	case err := <-watches["a certificate"]:
		t.Errorf("the watch with a certificate ended with %v", err)
	default:
	}
	f.Leaderless.Store(false)
	for who, c := range callers {
		if err := list(c); err != nil {
			t.Errorf("%s, once there is a leader again: %v", who, err)
		}
	}
}
