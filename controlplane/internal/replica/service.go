package replica

import (
	"context"
	"errors"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// leaderField is the field of a problem that names the leader's address.
const leaderField = "leader"

// service answers the other servers.
type service struct {
	commandv1.UnimplementedPeerServiceServer
	*Replica
}

// Propose implements commandv1.PeerServiceServer.
func (s service) Propose(ctx context.Context, req *commandv1.ProposeRequest) (*commandv1.ProposeResponse, error) {
	if req.GetCommand() == nil || len(req.GetCommand().GetId()) == 0 {
		return nil, problem.New(problem.Invalid, "a command that is sent on needs an id", "Send the id with every repetition.")
	}
	leader, _, changed := s.leadership.watch()
	if !leader.Self {
		return nil, s.notLeader()
	}
	if err := s.checkMember(ctx); err != nil {
		return nil, err
	}
	result, err := s.proposeHere(ctx, changed, req.GetCommand())
	if err != nil {
		return nil, unknown(err)
	}
	s.couriers.wanted(callerOf(ctx), result.GetIndex())
	return &commandv1.ProposeResponse{Result: result}, nil
}

// ReadIndex implements commandv1.PeerServiceServer.
func (s service) ReadIndex(ctx context.Context, _ *commandv1.ReadIndexRequest) (*commandv1.ReadIndexResponse, error) {
	leader, _, changed := s.leadership.watch()
	if !leader.Self {
		return nil, s.notLeader()
	}
	// A leader in a minority does not know who is a member; whoever is in the majority does.
	index, err := s.reads.join(ctx, changed)
	if err != nil {
		return nil, problem.Newf(problem.Unavailable, "Try again.", "this server could not make sure that it leads: %w", err)
	}
	if err := s.checkMember(ctx); err != nil {
		return nil, err
	}
	s.couriers.wanted(callerOf(ctx), index)
	return &commandv1.ReadIndexResponse{Index: index}, nil
}

// Status implements commandv1.PeerServiceServer. It answers any server of the federation: one that joins is not a member yet
// where its admission has not come to.
func (s service) Status(ctx context.Context, _ *commandv1.StatusRequest) (*commandv1.StatusResponse, error) {
	server, err := s.self(ctx)
	if err != nil {
		return nil, err
	}
	return &commandv1.StatusResponse{Server: server, State: s.hashes.get()}, nil
}

// Samples implements commandv1.PeerServiceServer.
func (s service) Samples(ctx context.Context, _ *commandv1.SamplesRequest) (*commandv1.SamplesResponse, error) {
	if err := s.checkMember(ctx); err != nil {
		return nil, err
	}
	return s.c.Local.Samples(ctx)
}

// Brokers implements commandv1.PeerServiceServer.
func (s service) Brokers(ctx context.Context, _ *commandv1.BrokersRequest) (*commandv1.BrokersResponse, error) {
	if err := s.checkMember(ctx); err != nil {
		return nil, err
	}
	brokers, err := s.c.Local.Brokers(ctx)
	return &commandv1.BrokersResponse{Brokers: brokers}, err
}

// Join implements commandv1.PeerServiceServer.
func (s service) Join(ctx context.Context, req *commandv1.JoinServerRequest) (*commandv1.JoinServerResponse, error) {
	return s.c.Join.Join(ctx, req)
}

// Admit implements commandv1.PeerServiceServer.
func (s service) Admit(ctx context.Context, req *commandv1.AdmitRequest) (*commandv1.AdmitResponse, error) {
	server := req.GetServer()
	if caller := callerOf(ctx); caller != server.GetId() {
		return nil, problem.Newf(problem.Forbidden, "Ask for yourself.", "server %s asks to admit server %s", caller, server.GetId())
	}
	if !s.Leader().Self {
		return nil, s.notLeader()
	}
	if err := s.c.Join.Admit(ctx, server); err != nil {
		return nil, err
	}
	if err := s.AddVoter(ctx, server.GetId(), server.GetPeerAddress()); err != nil {
		return nil, err
	}
	return &commandv1.AdmitResponse{}, nil
}

// RemoveServer implements commandv1.PeerServiceServer.
func (s service) RemoveServer(ctx context.Context, req *commandv1.RemoveServerRequest) (*commandv1.RemoveServerResponse, error) {
	if req.GetServerId() == "" || len(req.GetThen().GetId()) == 0 {
		return nil, problem.New(problem.Invalid, "a server is removed by its id, and the command that follows has one", "Send both with every repetition.")
	}
	leader, _, changed := s.leadership.watch()
	if !leader.Self {
		return nil, s.notLeader()
	}
	if err := s.checkMember(ctx); err != nil {
		return nil, err
	}
	result, err := s.removeHere(ctx, changed, req.GetServerId(), req.GetThen())
	if err != nil {
		return nil, unknown(err)
	}
	s.couriers.wanted(callerOf(ctx), result.GetIndex())
	return &commandv1.RemoveServerResponse{Result: result}, nil
}

// IssueAdministrator implements commandv1.PeerServiceServer.
func (s service) IssueAdministrator(ctx context.Context, req *commandv1.IssueAdministratorRequest) (*commandv1.IssueAdministratorResponse, error) {
	if err := s.checkMember(ctx); err != nil {
		return nil, err
	}
	return s.c.Join.IssueAdministrator(ctx, callerOf(ctx), req)
}

// unknown lets the caller repeat what may or may not have been carried out.
func unknown(err error) error {
	if again(err) || errors.Is(err, errStopping) {
		return problem.Newf(problem.Unavailable, "Repeat the command with the same id.", "it is not known whether the command was carried out: %w", err)
	}
	return err
}

// notLeader says who leads instead, where that is known.
func (r *Replica) notLeader() error {
	leader := r.Leader()
	if leader.ID == "" || leader.ID == r.c.ServerID {
		return problem.Newf(problem.Unavailable, "Try again.", "server %s does not lead and knows no leader", r.c.ServerID)
	}
	return problem.Newf(problem.Unavailable, "Ask the leader.", "server %s does not lead; server %s at %s does", r.c.ServerID, leader.ID, leader.Address).
		With(leaderField, leader.Address)
}
