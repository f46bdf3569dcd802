// Package peer is what agents of one zone say to one another: an agent enters the zone, one asks another whether it
// reaches a host, and an edge passes a call to the agent that holds the link. It is spoken inside the zone only.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/identity"
)

// Reacher tells whether this agent reaches a host; nil when it does.
type Reacher interface {
	Reach(ctx context.Context, hostID string) error
}

// Caller carries a call over the link this agent holds, and hands each message of the answer to send.
type Caller interface {
	Call(ctx context.Context, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error
}

// Server answers the zone's other agents.
type Server struct {
	zonev1.UnimplementedAgentServiceServer

	Identity *identity.Identity
	// Endpoints are those of the zone's etcd, for agents that enter.
	Endpoints func() []string
	Reacher   Reacher
	Caller    Caller
	Log       *slog.Logger
}

// guards judge who calls: a member of the zone, or an agent that enters and has its link certificate only.
func (s *Server) guards() (member, entering *pki.Guard) {
	return &pki.Guard{Roots: s.Identity.Roots, Want: []pki.Role{pki.RoleMember}},
		&pki.Guard{Root: s.Identity.Link.Root, Want: []pki.Role{pki.RoleAgent}}
}

// Run serves on l until ctx ends.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	member, entering := s.guards()
	config := member.Server(s.Identity.Member.TLSCertificate)
	ofMember, ofEntering := config.VerifyConnection, entering.Server(nil).VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if err := ofMember(state); err != nil {
			if entered := ofEntering(state); entered != nil {
				return errors.Join(err, entered)
			}
		}
		return nil
	}
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)),
		grpc.UnaryInterceptor(s.admitUnary(member)),
		grpc.StreamInterceptor(s.admitStream(member)),
		grpc.MaxRecvMsgSize(4<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	zonev1.RegisterAgentServiceServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(l)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("serve the zone's agents on %s: %w", l.Addr(), err)
}

// admitUnary lets only members of the zone in, but for Enter, which judges by itself.
func (s *Server) admitUnary(member *pki.Guard) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if info.FullMethod != zonev1.AgentService_Enter_FullMethodName {
			if _, err := member.FromContext(ctx); err != nil {
				return nil, problem.ToStatus(problem.Newf(problem.CertificateInvalid, "", "%w", err))
			}
		}
		answer, err := next(ctx, req)
		return answer, problem.ToStatus(err)
	}
}

func (s *Server) admitStream(member *pki.Guard) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if _, err := member.FromContext(stream.Context()); err != nil {
			return problem.ToStatus(problem.Newf(problem.CertificateInvalid, "", "%w", err))
		}
		return problem.ToStatus(next(srv, stream))
	}
}

// Enter lets an agent into the zone that shows a link certificate of it.
func (s *Server) Enter(ctx context.Context, r *zonev1.EnterRequest) (*zonev1.EnterResponse, error) {
	_, entering := s.guards()
	who, err := entering.FromContext(ctx)
	if err != nil {
		return nil, problem.Newf(problem.CertificateInvalid, "Let it join with a token first: naru zone token", "%w", err)
	}
	answer, err := s.Identity.LetIn(who, r)
	if err != nil {
		return nil, err
	}
	answer.EtcdEndpoints = s.Endpoints()
	s.Log.Info("an agent entered the zone", "agent", r.GetAgent())
	return answer, nil
}

// Authorities tells another agent of the zone's authorities.
func (s *Server) Authorities(_ context.Context, r *zonev1.AuthoritiesRequest) (*zonev1.AuthoritiesResponse, error) {
	return s.Identity.TellAuthorities(r)
}

// Reach tells whether this agent reaches a host.
func (s *Server) Reach(ctx context.Context, r *zonev1.ReachRequest) (*zonev1.ReachResponse, error) {
	if err := s.Reacher.Reach(ctx, r.GetHostId()); err != nil {
		return &zonev1.ReachResponse{Reason: err.Error()}, nil
	}
	return &zonev1.ReachResponse{Reachable: true}, nil
}

// Call carries an edge's call over the link that this agent holds.
func (s *Server) Call(r *zonev1.CallRequest, stream grpc.ServerStreamingServer[zonev1.CallResponse]) error {
	return s.Caller.Call(stream.Context(), r, stream.Send)
}
