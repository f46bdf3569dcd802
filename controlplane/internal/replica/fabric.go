package replica

import (
	"context"

	"github.com/hashicorp/raft"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// fabric is how the servers of a federation reach one another: over TLS, or in memory under test.
type fabric interface {
	// transport carries Raft's own messages. Raft closes it.
	transport() raftTransport
	// client returns what speaks to the peer at address.
	client(address string) (commandv1.PeerServiceClient, error)
	// serve answers peers with s until close.
	serve(s commandv1.PeerServiceServer)
	close() error
}

type raftTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

type callerKey struct{}

// withCaller notes which server calls; "" for a caller without a server's certificate.
func withCaller(ctx context.Context, serverID string) context.Context {
	return context.WithValue(ctx, callerKey{}, serverID)
}

func callerOf(ctx context.Context) string {
	id, _ := ctx.Value(callerKey{}).(string)
	return id
}
