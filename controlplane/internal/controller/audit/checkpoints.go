// Package audit is the leader's care for the audit log: it signs a checkpoint of it every ten seconds in which it has grown, and shows
// the newest to each zone once a minute, to be countersigned.
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// every is how long an entry waits at most until a checkpoint covers it.
	every = 10 * time.Second
	actor = "audit"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Keeper holds the key that signs.
type Keeper interface {
	// AuditKey returns the newest; empty where there is none.
	AuditKey(ctx context.Context) (private, public string, err error)
	// NewAuditKey makes one.
	NewAuditKey(federation, after string) (*commandv1.AddAuditKey, error)
}

// Config is what the loop is made of. Every field must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	Keeper   Keeper
	Log      *slog.Logger
	Now      func() time.Time
}

// Checkpoints runs on the leader only.
type Checkpoints struct{ Config }

// New returns one that does nothing yet.
func New(c Config) *Checkpoints { return &Checkpoints{c} }

// Run signs and shows at once what is not signed and shown, and then every ten seconds, until ctx ends. What fails is tried again at the next turn.
func (c *Checkpoints) Run(ctx context.Context) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if err := c.turn(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("the audit log could not be signed", "error", err, "again_in", every)
		} else if err := c.offer(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("zones could not be shown the audit log", "error", err, "again_in", every)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// turn makes a key where there is none, and signs the log as it is where it has grown.
func (c *Checkpoints) turn(ctx context.Context) error {
	next := audit.Checkpoint{Time: c.Now().UTC().Truncate(time.Second)}
	federation, signed := "", ""
	err := c.Reader.View(ctx, func(tx *state.Tx) (err error) {
		federation, next.Epoch = tx.Meta().Federation, tx.Meta().Epoch
		if next.Size, err = tx.AuditSize(); err != nil || next.Size == 0 {
			return err
		}
		newest, err := tx.Checkpoint()
		if err == nil {
			signed = newest.GetSize()
		} else if err != state.ErrNotFound {
			return err
		}
		root, err := tx.AuditRoot(next.Size)
		next.Root = root
		return err
	})
	if err != nil || next.Size == 0 || signed == strconv.FormatUint(next.Size, 10) {
		return err
	}
	private, public, err := c.Keeper.AuditKey(ctx)
	if err != nil {
		return err
	}
	if private == "" {
		return c.begin(ctx, federation)
	}
	next.Origin = audit.Origin(federation)
	note, err := audit.Sign(next, private)
	if err != nil {
		return err
	}
	if _, _, err := audit.Open(note, []string{public}); err != nil {
		return fmt.Errorf("what was signed cannot be verified: %w", err)
	}
	return c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_SignAudit{SignAudit: &commandv1.SignAudit{Checkpoint: &apiv1.AuditCheckpoint{
		Size: strconv.FormatUint(next.Size, 10), Root: next.Root[:], Time: timestamppb.New(next.Time), Note: note,
	}}}})
}

// begin makes the first key; the next turn signs with it.
func (c *Checkpoints) begin(ctx context.Context, federation string) error {
	key, err := c.Keeper.NewAuditKey(federation, "")
	if err != nil {
		return err
	}
	if err := c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_AddAuditKey{AddAuditKey: key}}); err != nil {
		return err
	}
	c.Log.Info("the audit log has a key that signs its checkpoints", "key", key.GetKey().GetPublicKey())
	return c.turn(ctx)
}

// offerAtOnce bounds to how many zones one command shows a checkpoint.
const offerAtOnce = 1000

// offer shows the newest checkpoint to the zones whose turn it is. What was signed before a restore is not shown: it may be less
// than a zone has seen in its epoch.
func (c *Checkpoints) offer(ctx context.Context) error {
	var due []string
	err := c.Reader.View(ctx, func(tx *state.Tx) error {
		newest, err := tx.Checkpoint()
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		says, err := audit.Read(newest.GetNote())
		if err != nil || says.Epoch != tx.Meta().Epoch {
			return err
		}
		for zone, err := range tx.Zones.All(nil) {
			if err != nil {
				return err
			}
			w, err := tx.Witness(zone.GetId())
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				return err
			}
			gone := zone.GetState() == apiv1.Zone_RETIRED || zone.GetState() == apiv1.Zone_JOINING
			if !gone && len(due) < offerAtOnce && w.Due(says.Size, c.Now().UnixMicro()) {
				due = append(due, zone.GetId())
			}
		}
		return nil
	})
	if err != nil || len(due) == 0 {
		return err
	}
	return c.propose(ctx, &commandv1.Command{Body: &commandv1.Command_OfferAudit{OfferAudit: &commandv1.OfferAudit{ZoneIds: due}}})
}

func (c *Checkpoints) propose(ctx context.Context, next *commandv1.Command) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	next.Id, next.Actor = id[:], actor
	result, err := c.Proposer.Propose(ctx, next)
	if err != nil {
		return err
	}
	return problem.FromProto(result.GetProblem())
}
