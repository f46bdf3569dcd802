package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/identity"
)

// Enter asks the agents at the addresses, one after the other, to be let into the zone whose authority has the pin.
func Enter(ctx context.Context, i *identity.Identity, addresses []string, pin string) (endpoints []string, err error) {
	request, take, err := i.AskToEnter(pin)
	if err != nil {
		return nil, err
	}
	guard := &pki.Guard{Pin: pin, Want: []pki.Role{pki.RoleMember}}
	var errs []error
	for _, address := range addresses {
		answer, err := enterAt(ctx, address, guard.Client(i.Link.TLSCertificate), request)
		if err == nil {
			return answer.GetEtcdEndpoints(), take(answer)
		}
		errs = append(errs, problem.Newf(problem.Unavailable, "", "agent at %s: %w", address, err))
	}
	return nil, errors.Join(errs...)
}

func enterAt(ctx context.Context, address string, config *tls.Config, r *zonev1.EnterRequest) (*zonev1.EnterResponse, error) {
	conn, err := dial(address, credentials.NewTLS(config))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return zonev1.NewAgentServiceClient(conn).Enter(ctx, r)
}

// Peers calls the zone's other agents. Safe for concurrent use.
type Peers struct {
	identity *identity.Identity

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// NewPeers returns a caller of other agents.
func NewPeers(i *identity.Identity) *Peers {
	return &Peers{identity: i, conns: map[string]*grpc.ClientConn{}}
}

// Close closes all connections.
func (p *Peers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = map[string]*grpc.ClientConn{}
}

func (p *Peers) at(address string) (zonev1.AgentServiceClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[address]
	if c == nil {
		guard := &pki.Guard{Roots: p.identity.Roots, Want: []pki.Role{pki.RoleMember}}
		var err error
		if c, err = dial(address, credentials.NewTLS(guard.Client(p.identity.Member.TLSCertificate))); err != nil {
			return nil, err
		}
		p.conns[address] = c
	}
	return zonev1.NewAgentServiceClient(c), nil
}

// Learn asks the agent at address what it knows of the zone's authorities.
func (p *Peers) Learn(ctx context.Context, address string) error {
	c, err := p.at(address)
	if err != nil {
		return err
	}
	request, take, err := p.identity.AskAuthorities()
	if err != nil {
		return err
	}
	answer, err := c.Authorities(ctx, request)
	if err != nil {
		return err
	}
	return take(answer)
}

// Reach asks the agent at address whether it reaches a host. The error says that it did not answer.
func (p *Peers) Reach(ctx context.Context, address, hostID string) (reachable bool, reason string, err error) {
	c, err := p.at(address)
	if err != nil {
		return false, "", err
	}
	r, err := c.Reach(ctx, &zonev1.ReachRequest{HostId: hostID})
	return r.GetReachable(), r.GetReason(), err
}

// Call has the agent at address carry a call over the link it holds.
func (p *Peers) Call(ctx context.Context, address string, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
	c, err := p.at(address)
	if err != nil {
		return err
	}
	stream, err := c.Call(ctx, r)
	for err == nil {
		var answer *zonev1.CallResponse
		if answer, err = stream.Recv(); err == nil {
			err = send(answer)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func dial(address string, c credentials.TransportCredentials) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(c),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
}
