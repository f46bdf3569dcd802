package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// statusTimeout is how long a peer may take to say how it is.
	statusTimeout = time.Second
	// catchUpInterval is how often a new server is asked how far it is.
	catchUpInterval = 50 * time.Millisecond
	// admissionRetry is how long a new server waits before it asks again.
	admissionRetry = 500 * time.Millisecond
)

// ErrRemoved is why Run ends on a server that the federation has removed.
var ErrRemoved = errors.New("this server was removed from the federation; to use it again, give it an empty data folder and let it join anew")

// Bootstrap makes this server the only voter of a new federation. The first command is the caller's to propose.
func (r *Replica) Bootstrap() error {
	err := r.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{
		{ID: raft.ServerID(r.c.ServerID), Address: raft.ServerAddress(r.c.Address)},
	}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return problem.Newf(problem.WrongState, "Start the server without bootstrap, or give it an empty data folder.",
			"the data folder %s already holds a federation: %w", r.c.Dir, err)
	}
	if err != nil {
		return fmt.Errorf("bootstrap the federation: %w", err)
	}
	return nil
}

// Servers returns the servers of the federation as they are now, each asked at once and given a second; of one that does not
// answer only id, address and voter are known.
func (r *Replica) Servers(ctx context.Context) ([]*apiv1.Server, error) {
	members := r.raft.GetConfiguration().Configuration().Servers
	servers := make([]*apiv1.Server, len(members))
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var wait sync.WaitGroup
	for i, m := range members {
		wait.Go(func() {
			server, err := r.statusOf(ctx, m)
			if err != nil {
				server = &apiv1.Server{}
			}
			server.Healthy = err == nil
			server.Id, server.PeerAddress, server.Voter = string(m.ID), string(m.Address), m.Suffrage == raft.Voter
			servers[i] = server
		})
	}
	wait.Wait()
	return servers, nil
}

func (r *Replica) statusOf(ctx context.Context, m raft.Server) (*apiv1.Server, error) {
	if string(m.ID) == r.c.ServerID {
		return r.self(ctx)
	}
	peer, err := r.fabric.client(string(m.Address))
	if err != nil {
		return nil, err
	}
	resp, err := peer.Status(ctx, &commandv1.StatusRequest{})
	return resp.GetServer(), problem.FromStatus(err)
}

// self is this server as it sees itself.
func (r *Replica) self(ctx context.Context) (*apiv1.Server, error) {
	server, err := r.c.Local.Server(ctx)
	if err != nil {
		return nil, err
	}
	server.Id, server.PeerAddress = r.c.ServerID, r.c.Address
	server.AppliedIndex = strconv.FormatUint(r.progress.applied(), 10)
	server.Healthy = true
	switch r.raft.State() {
	case raft.Leader:
		server.Role = apiv1.Server_LEADER
	case raft.Candidate:
		server.Role = apiv1.Server_CANDIDATE
	default:
		server.Role = apiv1.Server_FOLLOWER
	}
	return server, nil
}

// AddVoter lets a server take part, on the leader only. It first follows without a vote until it has what the leader has: a
// voter that cannot be reached would count for the majority all the same, and could stop the federation.
func (r *Replica) AddVoter(ctx context.Context, id, address string) error {
	if id == "" {
		return problem.New(problem.Invalid, "a server needs an id", "")
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return problem.Newf(problem.Invalid, "Give it as HOST:PORT.", "%q is no peer address: %w", address, err)
	}
	if !r.Leader().Self {
		return r.notLeader()
	}
	for _, m := range r.members() {
		switch {
		case string(m.ID) == id && string(m.Address) == address && m.Suffrage == raft.Voter:
			return nil
		case string(m.ID) != id && string(m.Address) == address:
			return problem.Newf(problem.Conflict, "Remove that server first, or give the new one another address.", "server %s has the address %s already", m.ID, address)
		}
	}
	server := raft.Server{Suffrage: raft.Nonvoter, ID: raft.ServerID(id), Address: raft.ServerAddress(address)}
	if !r.isVoter(id) {
		if err := r.reconfigure(ctx, r.raft.AddNonvoter(server.ID, server.Address, 0, 0)); err != nil {
			return err
		}
	}
	if err := r.untilCaughtUp(ctx, server); err != nil {
		return err
	}
	return r.reconfigure(ctx, r.raft.AddVoter(server.ID, server.Address, 0, 0))
}

// untilCaughtUp returns when the server has applied what is committed here now.
func (r *Replica) untilCaughtUp(ctx context.Context, server raft.Server) error {
	goal := r.raft.CommitIndex()
	tick := time.NewTicker(catchUpInterval)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, statusTimeout)
		status, err := r.statusOf(attempt, server)
		cancel()
		if err == nil {
			var has uint64
			if has, err = strconv.ParseUint(status.GetAppliedIndex(), 10, 64); err == nil && has >= goal {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return problem.Newf(problem.Unavailable, "See that the servers reach it at that address; then try again.",
				"server %s at %s has not caught up, and follows without a vote: %w", server.ID, server.Address, errors.Join(ctx.Err(), err))
		}
	}
}

// RemoveServer takes a server out of the federation and then has a command carried out, whichever server is asked. A server
// that takes no part, because it was removed before or is of a life before a restore, is no error: the command is all that
// is left to do. To be removed, the leader first lets another one lead. Errors are those of Propose; a repetition with the
// same command does no harm.
func (r *Replica) RemoveServer(ctx context.Context, id string, then *commandv1.Command) (*commandv1.Result, error) {
	if id == r.c.ServerID {
		// Who is removed by its own word still hears the answer before it ends.
		r.removing.RLock()
		defer r.removing.RUnlock()
	}
	return r.carryOut(ctx, then, func(ctx context.Context, leader Leader, changed <-chan struct{}) (*commandv1.Result, error) {
		if leader.Self {
			return r.removeHere(ctx, changed, id, then)
		}
		var resp *commandv1.RemoveServerResponse
		err := r.ask(ctx, leader, changed, func(ctx context.Context, peer commandv1.PeerServiceClient) (err error) {
			resp, err = peer.RemoveServer(ctx, &commandv1.RemoveServerRequest{ServerId: id, Then: then})
			return err
		})
		return resp.GetResult(), err
	}, id != r.c.ServerID)
}

// removeHere is RemoveServer on the leader.
func (r *Replica) removeHere(ctx context.Context, ended <-chan struct{}, id string, then *commandv1.Command) (*commandv1.Result, error) {
	var rest []raft.Server
	found := false
	for _, m := range r.members() {
		if string(m.ID) == id {
			found = true
		} else if m.Suffrage == raft.Voter {
			rest = append(rest, m)
		}
	}
	switch {
	case !found:
		return r.proposeHere(ctx, ended, then)
	case len(rest) == 0:
		return nil, problem.Newf(problem.WrongState, "Let another server join first.", "server %s is the last one that has a vote", id)
	}
	if err := r.majorityAnswers(ctx, rest); err != nil {
		return nil, err
	}
	if id == r.c.ServerID {
		r.handOver("this server is to be removed")
		return nil, problem.New(problem.Unavailable, "the leader is to be removed, and another one takes over first", "Try again.")
	}
	if err := r.reconfigure(ctx, r.raft.RemoveServer(raft.ServerID(id), 0, 0)); err != nil {
		return nil, err
	}
	return r.proposeHere(ctx, ended, then)
}

// majorityAnswers refuses what would leave the federation without a majority: Raft makes a new configuration valid before
// it is known whether those in it can commit anything.
func (r *Replica) majorityAnswers(ctx context.Context, voters []raft.Server) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	said := make(chan string, len(voters))
	for _, m := range voters {
		go func() {
			if _, err := r.statusOf(ctx, m); err != nil {
				said <- string(m.ID)
				return
			}
			said <- ""
		}()
	}
	var silent []string
	for range voters {
		if id := <-said; id != "" {
			silent = append(silent, id)
		}
	}
	if len(voters)-len(silent) > len(voters)/2 {
		return nil
	}
	slices.Sort(silent)
	return problem.Newf(problem.WrongState, "Delete a server that does not answer first, or bring it back.",
		"without it, %d of %d servers would not answer (%s), and nothing could be written any more", len(silent), len(voters), strings.Join(silent, ", "))
}

func (r *Replica) members() []raft.Server { return r.raft.GetConfiguration().Configuration().Servers }

func (r *Replica) isVoter(id string) bool {
	for _, m := range r.members() {
		if string(m.ID) == id {
			return m.Suffrage == raft.Voter
		}
	}
	return false
}

// reconfigure waits for a change of Raft's configuration.
func (r *Replica) reconfigure(ctx context.Context, f raft.IndexFuture) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if err != nil {
			return problem.Newf(problem.Unavailable, "See \"naru server list\", and try again.", "the servers of the federation could not be changed: %w", err)
		}
		return r.progress.wait(ctx, f.Index())
	case <-r.stopping.Done():
		return problem.Newf(problem.Unavailable, "See \"naru server list\".", "it is not known whether the servers of the federation were changed: %w", errStopping)
	case <-ctx.Done():
		return problem.Newf(problem.Timeout, "See \"naru server list\".", "it is not known whether the servers of the federation were changed: %w", ctx.Err())
	}
}

// AskAdmission asks to be admitted as a voter, of any of the seeds and of whom they call the leader, until one does it or
// ctx ends. Run has to be running: a server is admitted when it has caught up.
func (r *Replica) AskAdmission(ctx context.Context, seeds []string, self *apiv1.Server) error {
	for {
		var last error
		for i, asked := 0, append([]string(nil), seeds...); i < len(asked); i++ {
			err := r.askAdmissionOf(ctx, asked[i], self)
			if err == nil {
				return nil
			}
			if !again(err) {
				return err
			}
			last = errors.Join(last, fmt.Errorf("%s: %w", asked[i], err))
			if leader := leaderIn(err); leader != "" && len(asked) == len(seeds) {
				asked = append(asked, leader)
			}
		}
		if pause(ctx, admissionRetry); ctx.Err() != nil {
			return problem.Newf(problem.Unavailable, "See that this server reaches them, and they this one.", "no server has admitted this one: %w", last)
		}
	}
}

func (r *Replica) askAdmissionOf(ctx context.Context, address string, self *apiv1.Server) error {
	peer, err := r.fabric.client(address)
	if err != nil {
		return err
	}
	_, err = peer.Admit(ctx, &commandv1.AdmitRequest{Server: self})
	return problem.FromStatus(err)
}

// leaderIn returns the leader's address that comes with notLeader.
func leaderIn(err error) string {
	for _, f := range problem.Of(err).GetErrors() {
		if f.GetField() == leaderField {
			return f.GetDetail()
		}
	}
	return ""
}

// checkMember refuses a caller that was removed.
func (r *Replica) checkMember(ctx context.Context) error {
	caller := callerOf(ctx)
	for _, m := range r.members() {
		if string(m.ID) == caller {
			return nil
		}
	}
	return problem.Newf(problem.Revoked, "Let it join anew, with an empty data folder.", "server %s is not one of the federation's servers", caller)
}

// watchMembership ends with ErrRemoved when the leader says that this server is no longer one of the federation's. It asks
// when a committed configuration leaves this server out, and when there has been no leader for a while: a removed server
// need not be told, and what it has in its own log may be old.
func (r *Replica) watchMembership(ctx context.Context) error {
	patience := 3 * r.c.Tuning.ElectionTimeout
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.leftOut:
		case <-tick.C:
			if l := r.Leader(); l.ID != "" || time.Since(l.Since) < patience {
				continue
			}
		}
		if r.removed(ctx) {
			r.removing.Lock() // until who asked for it has been answered
			defer r.removing.Unlock()
			return ErrRemoved
		}
	}
}

// removed asks the others. Only a leader whom a majority has just confirmed answers.
func (r *Replica) removed(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*statusTimeout)
	defer cancel()
	said := make(chan bool)
	others := 0
	for _, m := range r.members() {
		if string(m.ID) == r.c.ServerID {
			continue
		}
		others++
		go func() {
			peer, err := r.fabric.client(string(m.Address))
			if err == nil {
				_, err = peer.ReadIndex(ctx, &commandv1.ReadIndexRequest{})
			}
			said <- problem.Is(problem.FromStatus(err), problem.Revoked)
		}()
	}
	out := false
	for range others {
		out = <-said || out
	}
	return out
}
