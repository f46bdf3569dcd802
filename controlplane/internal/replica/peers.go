package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// messageBytes is the largest message between peers.
const messageBytes = 16 << 20

// serve implements fabric.
func (n *network) serve(s commandv1.PeerServiceServer) {
	n.server = grpc.NewServer(
		grpc.Creds(accepted{}), grpc.UnaryInterceptor(identify), grpc.MaxRecvMsgSize(messageBytes), grpc.MaxConcurrentStreams(4096),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	commandv1.RegisterPeerServiceServer(n.server, s)
	n.tasks.Go(func() {
		if err := n.server.Serve(n.forPeers); err != nil && n.ctx.Err() == nil {
			n.log.Error("peers are no longer answered", "error", err)
		}
	})
}

// identify lets only servers in, but for Join, and notes which one calls.
func identify(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	var id string
	if p, ok := peer.FromContext(ctx); ok {
		if a, ok := p.AuthInfo.(peerInfo); ok {
			id = a.serverID
		}
	}
	if id == "" && info.FullMethod != commandv1.PeerService_Join_FullMethodName {
		return nil, problem.ToStatus(problem.New(problem.Unauthenticated, "only a server of the federation may call "+info.FullMethod, "Join the federation first."))
	}
	resp, err := handle(withCaller(ctx, id), req)
	return resp, problem.ToStatus(err)
}

// client implements fabric. A connection is made when it is first used, and kept.
func (n *network) client(address string) (commandv1.PeerServiceClient, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.clients == nil {
		return nil, net.ErrClosed
	}
	conn, ok := n.clients[address]
	if !ok {
		var err error
		conn, err = grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(dialled{address: address, network: n}), grpc.WithNoProxy(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytes)),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: handshakeTimeout,
				Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}}),
		)
		if err != nil {
			return nil, fmt.Errorf("speak to the peer at %s: %w", address, err)
		}
		n.clients[address] = conn
	}
	return commandv1.NewPeerServiceClient(conn), nil
}

// peerInfo is what gRPC remembers of a connection.
type peerInfo struct {
	credentials.TLSInfo
	serverID string
}

func infoOf(p *peerConn) peerInfo {
	return peerInfo{serverID: p.serverID, TLSInfo: credentials.TLSInfo{
		State: p.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}}
}

// accepted are the credentials of connections whose handshake the listener has done.
type accepted struct{}

// ServerHandshake implements credentials.TransportCredentials.
func (accepted) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, ok := c.(*peerConn)
	if !ok {
		return nil, nil, fmt.Errorf("a %T did not come through the listener", c)
	}
	return p, infoOf(p), nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (accepted) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for accepting only")
}

func (accepted) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (accepted) Clone() credentials.TransportCredentials { return accepted{} }
func (accepted) OverrideServerName(string) error         { return nil }

// dialled are the credentials of connections to the peer at one address.
type dialled struct {
	address string
	network *network
}

// ClientHandshake implements credentials.TransportCredentials.
func (d dialled) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, err := d.network.dial(ctx, raw, d.address, peerProtocol)
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return p, infoOf(p), nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (dialled) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for dialling only")
}

func (d dialled) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (d dialled) Clone() credentials.TransportCredentials { return d }
func (dialled) OverrideServerName(string) error           { return nil }
