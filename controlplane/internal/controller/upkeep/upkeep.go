// Package upkeep is what the leader does by the clock: it fails operations whose deadline has passed, forgets what has
// outlived its keep, empties the trash, checks what quotas count, ends the sessions of servers that are gone, and raises the feature level.
package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// expireEvery is how often deadlines are looked at.
	expireEvery = time.Second
	// pruneEvery is how often what has outlived its keep is forgotten.
	pruneEvery = 10 * time.Minute
	// maxPrunes bounds the commands of one turn of forgetting.
	maxPrunes = 500
	// keepOutcomes is how long a command and an idempotency key are remembered.
	keepOutcomes = 24 * time.Hour
	// keepOperations and keepEvents are how long history is kept here.
	keepOperations = 30 * 24 * time.Hour
	keepEvents     = 30 * 24 * time.Hour
	// keepRecords is how long it can be listed what was changed without a request. The audit log has it for ever.
	keepRecords = 100 * 24 * time.Hour
	// watchEvery is how often the servers that hold sessions are looked at; goneAfter is how long one must have been
	// silent before its sessions count as ended. A zone's agent finds another server long before.
	watchEvery = 3 * time.Second
	goneAfter  = 12 * time.Second
	// trashEvery is how often it is looked what has been in the trash for its time; trashBatch bounds one command.
	trashEvery = time.Minute
	trashBatch = 100
	// trashTime is how long the deletion of what was in the trash may take.
	trashTime = 15 * time.Minute
	// sumsEvery is how often what quotas count is compared with the things themselves.
	sumsEvery = 5 * time.Minute
	// raiseEvery is how often it is looked whether every server knows a higher feature level.
	raiseEvery = time.Minute
	// foundEvery is how often a leader looks whether its federation has begun: the first of a new one leads before that.
	foundEvery = 50 * time.Millisecond
	// batch bounds one command.
	batch = 256
	actor = "upkeep"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Servers tells how the servers are now.
type Servers interface {
	Servers(context.Context) ([]*apiv1.Server, error)
}

// Config is what the upkeep is made of. Every field must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	Servers  Servers
	Log      *slog.Logger
	Now      func() time.Time
}

// Upkeep runs on the leader only.
type Upkeep struct {
	Config
	silentSince map[string]time.Time // by server id; of the watching loop alone
	drifted     string               // what was told last of sums that drifted; of the checking loop alone
}

// New returns an upkeep that does nothing yet.
func New(c Config) *Upkeep { return &Upkeep{Config: c} }

// Run goes on until ctx ends. What fails is tried again at the next turn.
func (u *Upkeep) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	u.silentSince = map[string]time.Time{}
	for what, loop := range map[string]struct {
		every time.Duration
		turn  func(context.Context) error
	}{
		"expire operations": {expireEvery, u.expire},
		"prune":             {pruneEvery, u.prune},
		"watch sessions":    {watchEvery, u.endSessionsOfTheGone},
		"feature level":     {raiseEvery, u.raiseFeatureLevel},
		"empty trash":       {trashEvery, u.emptyTrash},
		"check sums":        {sumsEvery, u.checkSums},
	} {
		g.Go(func() error {
			t := time.NewTicker(loop.every)
			defer t.Stop()
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-t.C:
				}
				if err := loop.turn(ctx); err != nil && ctx.Err() == nil {
					u.Log.Warn("upkeep", "what", what, "error", err)
				}
			}
		})
	}
	g.Go(func() error { return u.keepBuiltInRoles(ctx) })
	return g.Wait()
}

// keepBuiltInRoles sets the built-in roles at once where there is a federation, else as soon as there is one, and again from time
// to time: somebody may have deleted one of their own that stood in the way.
func (u *Upkeep) keepBuiltInRoles(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
		err := u.setBuiltInRoles(ctx)
		if errors.Is(err, errNoFederation) {
			next.Reset(foundEvery)
			continue
		}
		if err != nil && ctx.Err() == nil {
			u.Log.Warn("upkeep", "what", "built-in roles", "error", err)
		}
		next.Reset(raiseEvery)
	}
}

// expire fails what has passed its deadline.
func (u *Upkeep) expire(ctx context.Context) error {
	var ids []string
	err := u.Reader.View(ctx, func(tx *state.Tx) error {
		due, err := tx.DueOperations(u.Now().UnixMicro(), batch)
		for _, op := range due {
			ids = append(ids, op.GetId())
		}
		return err
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	return u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_ExpireOperations{ExpireOperations: &commandv1.ExpireOperations{OperationIds: ids}}})
}

// emptyTrash deletes for good what has been in the trash for its time.
func (u *Upkeep) emptyTrash(ctx context.Context) error {
	var ids []string
	err := u.Reader.View(ctx, func(tx *state.Tx) (err error) {
		ids, err = tx.DueTrash(u.Now().UnixMicro(), trashBatch)
		return err
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	return u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_EmptyTrash{EmptyTrash: &commandv1.EmptyTrash{
		VmIds: ids, Deadline: timestamppb.New(u.Now().Add(trashTime)),
	}}})
}

// prune forgets what has outlived its keep. One command forgets only so much of each kind, so that others do not wait long
// behind it: more follow while outcomes are left, of which there are at least as many as of anything that clients cause.
func (u *Upkeep) prune(ctx context.Context) error {
	now := u.Now()
	outcomesBefore := now.Add(-keepOutcomes)
	for range maxPrunes {
		if err := u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{
			Before:           timestamppb.New(outcomesBefore),
			OperationsBefore: timestamppb.New(now.Add(-keepOperations)),
			EventsBefore:     timestamppb.New(now.Add(-keepEvents)),
			RecordsBefore:    timestamppb.New(now.Add(-keepRecords)),
		}}}); err != nil {
			return err
		}
		left := false
		if err := u.Reader.View(ctx, func(tx *state.Tx) (err error) {
			left, err = tx.HasOutcomes(outcomesBefore.UnixMicro())
			return err
		}); err != nil || !left {
			return err
		}
	}
	return nil
}

// endSessionsOfTheGone ends sessions whose server has been silent for so long that it cannot say so itself.
func (u *Upkeep) endSessionsOfTheGone(ctx context.Context) error {
	servers, err := u.Servers.Servers(ctx)
	if err != nil {
		return err
	}
	now, gone := u.Now(), map[string]bool{}
	known := map[string]bool{}
	for _, s := range servers {
		known[s.GetId()] = true
		if s.GetHealthy() {
			delete(u.silentSince, s.GetId())
			continue
		}
		since, ok := u.silentSince[s.GetId()]
		if !ok {
			u.silentSince[s.GetId()] = now
			continue
		}
		gone[s.GetId()] = now.Sub(since) > goneAfter
	}
	var open map[string]state.ZoneSession
	err = u.Reader.View(ctx, func(tx *state.Tx) (err error) {
		open, err = tx.OpenZoneSessions()
		return err
	})
	for zone, s := range open {
		if err == nil && (gone[s.ServerID] || !known[s.ServerID]) {
			err = u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SetZoneSession{SetZoneSession: &commandv1.SetZoneSession{
				ZoneId: zone, Session: s.ID, Agent: s.Agent, ServerId: s.ServerID, Incarnation: s.Incarnation,
				Cause: "SERVER_GONE", Event: &apiv1.Event{Message: "its session ended: the server that held it is gone"},
			}}})
		}
	}
	return err
}

// raiseFeatureLevel lets commands mean more once every server, those that are recorded and those that take part, says that it
// knows the level. A server that is away says nothing, and the level waits for it: it would have to stop when it came back.
func (u *Upkeep) raiseFeatureLevel(ctx context.Context) error {
	servers, err := u.Servers.Servers(ctx)
	if err != nil {
		return err
	}
	knows := map[string]uint32{}
	level := uint32(math.MaxUint32)
	for _, s := range servers {
		knows[s.GetId()] = s.GetFeatureLevel() // 0 of one that does not answer
		level = min(level, s.GetFeatureLevel())
	}
	higher := false
	err = u.Reader.View(ctx, func(tx *state.Tx) error {
		for s, err := range tx.Servers.All(nil) {
			if err != nil {
				return err
			}
			level = min(level, knows[s.GetId()])
		}
		higher = level > tx.Meta().FeatureLevel
		return nil
	})
	if err != nil || !higher || len(servers) == 0 {
		return err
	}
	u.Log.Info("every server knows a higher feature level", "level", level)
	return u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_RaiseFeatureLevel{RaiseFeatureLevel: &commandv1.RaiseFeatureLevel{Level: level}}})
}

// errNoFederation says that the federation has not begun yet.
var errNoFederation = errors.New("there is no federation yet")

// setBuiltInRoles puts the roles of this version in the place of older ones. Errors: errNoFederation.
func (u *Upkeep) setBuiltInRoles(ctx context.Context) error {
	set := &commandv1.SetBuiltInRoles{Edition: rights.Edition}
	err := u.Reader.View(ctx, func(tx *state.Tx) error {
		set.Roles = nil
		if tx.Meta().Federation == "" {
			return errNoFederation
		}
		for _, role := range rights.BuiltIn() {
			was, err := tx.Roles.ByName(role.GetName(), nil)
			switch {
			case err == nil && (was.GetEdition() >= rights.Edition || !was.GetBuiltIn()):
				continue
			case err != nil && !errors.Is(err, state.ErrNotFound):
				return err
			}
			id, err := uuid.NewV7()
			if err != nil {
				return err
			}
			role.Id = id.String()
			set.Roles = append(set.Roles, role)
		}
		return nil
	})
	if err != nil || len(set.GetRoles()) == 0 {
		return err
	}
	return u.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SetBuiltInRoles{SetBuiltInRoles: set}})
}

func (u *Upkeep) propose(ctx context.Context, c *commandv1.Command) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	c.Id, c.Actor = id[:], actor
	_, err = u.Proposer.Propose(ctx, c)
	return err
}
