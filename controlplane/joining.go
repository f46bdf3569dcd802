package controlplane

import (
	"context"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/replica"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// joiner lets servers in.
type joiner struct{ server *Server }

func (j *joiner) Join(ctx context.Context, r *commandv1.JoinServerRequest) (*commandv1.JoinServerResponse, error) {
	if err := j.server.wait(ctx); err != nil {
		return nil, err
	}
	return j.server.keeper.JoinServer(ctx, j.server.replica, r)
}

// Admit records a server before it becomes a voter. A name that another server has is refused.
func (j *joiner) Admit(ctx context.Context, server *apiv1.Server) error {
	if err := j.server.wait(ctx); err != nil {
		return err
	}
	if err := (stateReader{j.server.db}).checkFeatureLevel(ctx, server.GetFeatureLevel(), server.GetVersion()); err != nil {
		return err
	}
	_, err := j.server.persist(ctx, &commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: server}}})
	return err
}

// IssueAdministrator lets in whoever holds a server's key, for when no administrator's certificate is good any more.
func (j *joiner) IssueAdministrator(ctx context.Context, serverID string, r *commandv1.IssueAdministratorRequest) (*commandv1.IssueAdministratorResponse, error) {
	if err := j.server.wait(ctx); err != nil {
		return nil, err
	}
	if err := schema.Validate(r); err != nil {
		return nil, err
	}
	id, err := pki.ServerID(j.server.keeper.Holder().Peer().Federation, serverID)
	if err != nil {
		return nil, err
	}
	who := auth.Principal{Kind: auth.Admin, Name: serverID, Actor: id.String()}
	chain, err := j.server.service.LetIn(ctx, who, r.GetName(), r.GetCsr())
	return &commandv1.IssueAdministratorResponse{Chain: chain}, err
}

// wait returns when New has put everything together.
func (s *Server) wait(ctx context.Context) error {
	select {
	case <-s.composed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// registrar answers what comes through brokers besides sessions: agents that join and renew, brokers that enrol.
type registrar struct{ server *Server }

func (r *registrar) Join(ctx context.Context, request *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	if err := r.server.replica.ReadIndex(ctx); err != nil {
		return nil, err
	}
	return r.server.keeper.Join(ctx, r.server.replica, request)
}

func (r *registrar) Renew(ctx context.Context, certificate []byte, request *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	// A server that has not heard of a revocation yet would make the certificate good for another day.
	if err := r.server.replica.ReadIndex(ctx); err != nil {
		return nil, err
	}
	return r.server.keeper.Renew(ctx, certificate, request)
}

// EnrollBroker issues a broker its certificate, and records that it has one.
func (r *registrar) EnrollBroker(ctx context.Context, brokerID string, csr []byte) ([][]byte, error) {
	if _, err := pki.KeyOfCSR(csr); err != nil {
		return nil, problem.Newf(problem.Invalid, "", "the broker's request: %w", err)
	}
	chain, err := r.server.keeper.EnrollBroker(ctx, brokerID, csr)
	if err != nil {
		return nil, err
	}
	_, err = r.server.persist(ctx, &commandv1.Command{Body: &commandv1.Command_EnrollBroker{EnrollBroker: &commandv1.EnrollBroker{BrokerId: brokerID}}})
	return chain, err
}

// allSamples is what zones relayed, over all servers.
type allSamples struct{ replica *replica.Replica }

func (a *allSamples) Hosts(ctx context.Context) ([]*apiv1.HostSample, error) {
	all, err := a.replica.Samples(ctx)
	return all.GetHosts(), err
}

func (a *allSamples) VMs(ctx context.Context) ([]*apiv1.VMSample, error) {
	all, err := a.replica.Samples(ctx)
	return all.GetVms(), err
}
