package controlplane

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// What a server still has to do at its first start lies in one of these files of its data folder, until it is done: they
// are written by init, join and restore.
const (
	bootstrapFile = "bootstrap.pb" // a commandv1.Bootstrap
	joinFile      = "join.json"    // a pendingJoin
	restoredFile  = "restored"     // a restoredBackup
)

// pendingJoin is what a server that has joined needs to be admitted.
type pendingJoin struct {
	Seeds []string `json:"seeds"`
}

// restoredBackup is what a restored server begins its epoch with.
type restoredBackup struct {
	Name     string `json:"name"`
	Revision uint64 `json:"revision"`
}

// begin does what is still to be done at a first start, then makes this server known as it is configured now.
func (s *Server) begin(ctx context.Context) error {
	for file, step := range map[string]func(context.Context, []byte) error{
		bootstrapFile: s.bootstrap, joinFile: s.askAdmission, restoredFile: s.beginEpoch,
	} {
		path := filepath.Join(s.config.Data, file)
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := step(ctx, b); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return s.introduce(ctx)
}

// bootstrap makes this server the first of a new federation.
func (s *Server) bootstrap(ctx context.Context, b []byte) error {
	first := &commandv1.Bootstrap{}
	if err := proto.Unmarshal(b, first); err != nil {
		return fmt.Errorf("%s is damaged; empty the data folder and begin anew: %w", bootstrapFile, err)
	}
	if err := s.replica.Bootstrap(); err != nil {
		return err
	}
	var done bool
	if err := s.db.View(ctx, func(tx *state.Tx) error { done = tx.Meta().Federation != ""; return nil }); err != nil || done {
		return err
	}
	first.Server = s.self()
	first.Server.Voter = true
	_, err := s.persist(ctx, &commandv1.Command{Body: &commandv1.Command_Bootstrap{Bootstrap: first}})
	if err == nil {
		s.log.Info("a new federation has begun", "federation", first.GetFederation(), "epoch", first.GetEpoch())
	}
	return err
}

// askAdmission has the leader take this server in.
func (s *Server) askAdmission(ctx context.Context, b []byte) error {
	p := &pendingJoin{}
	if err := json.Unmarshal(b, p); err != nil {
		return fmt.Errorf("%s is damaged; empty the data folder and join anew: %w", joinFile, err)
	}
	if err := s.replica.AskAdmission(ctx, p.Seeds, s.self()); err != nil {
		return fmt.Errorf("be admitted as a server: %w", err)
	}
	s.log.Info("admitted as a server")
	return nil
}

// beginEpoch marks that what is known here may be less than what was: everybody takes notice by the new epoch.
func (s *Server) beginEpoch(ctx context.Context, b []byte) error {
	from := &restoredBackup{}
	if err := json.Unmarshal(b, from); err != nil {
		return fmt.Errorf("%s is damaged; empty the data folder and restore anew: %w", restoredFile, err)
	}
	var epoch uint64
	if err := s.db.View(ctx, func(tx *state.Tx) error { epoch = tx.Meta().Epoch; return nil }); err != nil {
		return err
	}
	id := make([]byte, 16)
	rand.Read(id)
	_, err := s.persist(ctx, &commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{
		Epoch: max(epoch+1, uint64(time.Now().Unix())), EpochId: id, Reason: "restored from " + from.Name, RestoredRevision: from.Revision,
	}}})
	return err
}

// introduce records this server as it is configured now, where the record says otherwise, and gives it a certificate with
// the names it is configured with.
func (s *Server) introduce(ctx context.Context) error {
	self := s.self()
	self.Voter = true
	var known *apiv1.Server
	for known == nil {
		if err := s.replica.ReadIndex(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.log.Warn("waiting for the other servers", "error", err)
			continue
		}
		err := s.db.View(ctx, func(tx *state.Tx) (err error) {
			known, err = tx.Servers.Get(s.id)
			return absent(err)
		})
		if err != nil {
			return err
		}
		break
	}
	if known == nil || known.GetName() != self.GetName() || known.GetApiAddress() != self.GetApiAddress() ||
		known.GetPeerAddress() != self.GetPeerAddress() || known.GetVersion() != self.GetVersion() {
		if _, err := s.persist(ctx, &commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: self}}}); err != nil {
			return err
		}
	}
	return s.keeper.Reissue(ctx)
}

// persist proposes a command until it is carried out or refused, or ctx ends.
func (s *Server) persist(ctx context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	c.Id, c.Actor = id[:], s.keeper.Holder().Peer().ID.String()
	for {
		result, err := s.replica.Propose(ctx, proto.CloneOf(c))
		if err == nil || ctx.Err() != nil || result.GetProblem() != nil {
			return result, err
		}
		s.log.Warn("not carried out yet", "command", fmt.Sprintf("%T", c.GetBody()), "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}
