package service

import (
	"context"
	"crypto/sha256"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// backUpChunk is the size of a backup's pieces.
const backUpChunk = 256 << 10

type serverService struct {
	apiv1.UnimplementedServerServiceServer
	*Service
}

// ListServers returns the servers that the state knows, each as it is seen now. Where no server leads, they are those that
// this one knows: whoever asks wants to find out what is missing.
func (s serverService) ListServers(ctx context.Context, r *apiv1.ListServersRequest) (*apiv1.ListServersResponse, error) {
	var items []*apiv1.Server
	var next string
	err := s.evenLeaderless(ctx, func(ctx context.Context) (err error) {
		items, next, err = s.servers.list(ctx, r, place{})
		return err
	})
	if err == nil {
		err = s.overlay(ctx, items)
	}
	return &apiv1.ListServersResponse{Servers: items, NextPageToken: next}, err
}

func (s serverService) GetServer(ctx context.Context, r *apiv1.GetServerRequest) (*apiv1.GetServerResponse, error) {
	var m *apiv1.Server
	err := s.evenLeaderless(ctx, func(ctx context.Context) (err error) {
		m, err = s.servers.get(ctx, r.GetServer(), place{})
		return err
	})
	if err == nil {
		err = s.overlay(ctx, []*apiv1.Server{m})
	}
	return &apiv1.GetServerResponse{Server: m}, err
}

// leaderTime is how long an answer about servers waits for one that leads; the next one is usually there sooner.
const leaderTime = 3 * time.Second

// evenLeaderless reads, and where no server leads reads what this one has. The answer's header says so.
func (s serverService) evenLeaderless(ctx context.Context, read func(context.Context) error) error {
	patience := leaderTime
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end)/2)
	}
	led, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := read(led)
	if !problem.Is(err, problem.Unavailable) || ctx.Err() != nil {
		return err
	}
	call := callOf(ctx)
	call.Stale = true
	if err := read(WithCall(ctx, call)); err != nil {
		return err
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(gateway.ConsistencyHeader, gateway.Stale)) // not every way in has headers
	return nil
}

// overlay writes into servers what is seen of them now.
func (s serverService) overlay(ctx context.Context, servers []*apiv1.Server) error {
	live, err := s.Servers.Servers(ctx)
	if err != nil {
		return err
	}
	for _, m := range servers {
		m.Voter = false
		for _, l := range live {
			if l.GetId() == m.GetId() {
				m.Member = true
				m.Role, m.Voter, m.Healthy, m.AppliedIndex, m.Sessions = l.GetRole(), l.GetVoter(), l.GetHealthy(), l.GetAppliedIndex(), l.GetSessions()
				m.FeatureLevel = l.GetFeatureLevel()
				if l.GetVersion() != "" {
					m.Version = l.GetVersion()
				}
			}
		}
	}
	return nil
}

// DeleteServer takes a server out of the quorum, where it is in it, then out of the state. The last one stays.
func (s serverService) DeleteServer(ctx context.Context, r *apiv1.DeleteServerRequest) (*apiv1.DeleteServerResponse, error) {
	var known *commandv1.Result
	var server *apiv1.Server
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		// A repetition that comes after the server is gone finds its answer under its key.
		if known, err = s.answered(ctx, tx, r); known != nil || err != nil {
			return err
		}
		if server, err = s.servers.find(ctx, tx, r.GetServer(), place{}); err != nil {
			return err
		}
		if err := s.servers.matches(ctx, server); err != nil {
			return err
		}
		all, _, err := tx.Servers.List(state.Query{PageSize: 2})
		if err == nil && len(all) < 2 {
			return problem.New(problem.InUse, "server "+server.GetName()+" is the last one", "Add another server before this one goes.")
		}
		return err
	})
	if err == nil && known == nil {
		var c *commandv1.Command
		c, err = command(ctx, r, func(c *commandv1.Command) {
			c.Body = &commandv1.Command_DeleteServer{DeleteServer: &commandv1.DeleteNoun{Id: server.GetId()}}
		})
		if err == nil {
			known, err = s.Servers.RemoveServer(ctx, server.GetId(), c)
		}
	}
	if err == nil {
		err = problem.FromProto(known.GetProblem())
	}
	op, err := s.ended(ctx, "server.delete", reference("server", server), known, err)
	return &apiv1.DeleteServerResponse{Operation: op}, err
}

// CreateServerToken makes a token with which one server may join. A repetition makes another one, which does no harm.
func (s serverService) CreateServerToken(ctx context.Context, r *apiv1.CreateServerTokenRequest) (*apiv1.CreateServerTokenResponse, error) {
	if err := s.everywhere(ctx); err != nil {
		return nil, err
	}
	text, expires, err := s.newJoinToken(ctx, "server", "", r.GetLifetimeSeconds())
	return &apiv1.CreateServerTokenResponse{Token: text, ExpiresAt: expires}, err
}

// BackUp sends a backup in pieces: of all that was acknowledged before, or, where the caller asks for what is stale, of what
// this server has. Only of the first can it be said that zones need no longer keep what it has.
func (s serverService) BackUp(r *apiv1.BackUpRequest, stream grpc.ServerStreamingServer[apiv1.BackUpResponse]) error {
	ctx := stream.Context()
	if err := s.everywhere(ctx); err != nil {
		return err
	}
	if !callOf(ctx).Stale {
		id := newID()
		_, err := s.propose(ctx, nil, func(c *commandv1.Command) {
			c.Body = &commandv1.Command_BeginBackup{BeginBackup: &commandv1.Backup{Id: id}}
		})
		if err != nil {
			return err
		}
		if err := stream.Send(&apiv1.BackUpResponse{Backup: id}); err != nil {
			return err
		}
	}
	w := &chunkWriter{send: func(b []byte) error { return stream.Send(&apiv1.BackUpResponse{Chunk: b}) }}
	sum := sha256.New()
	if err := s.Servers.BackUp(ctx, io.MultiWriter(w, sum)); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return stream.Send(&apiv1.BackUpResponse{Sha256: sum.Sum(nil)})
}

// ConfirmBackUp notes that the newest backup lies whole where it was written.
func (s serverService) ConfirmBackUp(ctx context.Context, r *apiv1.ConfirmBackUpRequest) (*apiv1.ConfirmBackUpResponse, error) {
	if err := s.everywhere(ctx); err != nil {
		return nil, err
	}
	_, err := s.propose(ctx, r, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_ConfirmBackup{ConfirmBackup: &commandv1.Backup{Id: r.GetBackup()}}
	})
	return &apiv1.ConfirmBackUpResponse{}, err
}

// chunkWriter gathers what is written into pieces of one size; the last one is shorter, or empty.
type chunkWriter struct {
	send func([]byte) error
	held []byte
}

func (w *chunkWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		take := min(len(p), backUpChunk-len(w.held))
		w.held, p, n = append(w.held, p[:take]...), p[take:], n+take
		if len(w.held) == backUpChunk {
			if err := w.send(w.held); err != nil {
				return n, err
			}
			w.held = nil // the piece may still be on its way
		}
	}
	return n, nil
}

func (w *chunkWriter) flush() error { return w.send(w.held) }
