// Package operators tells each zone who its own operators are, so that they can log in in it while it is cut off: of each what the zone
// needs to know them by, sealed to it. Only the leader does, whenever people, roles, groups or zones change.
package operators

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/credential"
	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	// every is how often all is looked at though nothing seems to have changed: roles end, and machines become known.
	every = time.Minute
	// gather is how long a change waits for others.
	gather = time.Second
	// atOnce bounds how many operators one command tells of.
	atOnce = 64
	actor  = "operators"
)

// Reader reads this server's copy of the state.
type Reader interface {
	View(ctx context.Context, fn func(*state.Tx) error) error
	Watch(topics ...string) *state.Watch
}

// Proposer has a command carried out once.
type Proposer interface {
	Propose(context.Context, *commandv1.Command) (*commandv1.Result, error)
}

// Rights says who a zone's operators are. service.Service does.
type Rights interface {
	Operators(tx *state.Tx, zone *apiv1.Zone, now time.Time) ([]rights.Operator, error)
}

// Config is what the controller is made of. Every field must be set.
type Config struct {
	Reader   Reader
	Proposer Proposer
	Rights   Rights
	Unseal   func(role string, sealed []byte) ([]byte, error)
	Log      *slog.Logger
	Now      func() time.Time
}

// Controller runs on the leader only.
type Controller struct{ Config }

// New returns a controller that does nothing yet.
func New(c Config) *Controller { return &Controller{c} }

// Run goes on until ctx ends. What fails is tried again.
func (c *Controller) Run(ctx context.Context) error {
	changed := c.Reader.Watch("users", "groups", state.TopicMembers, "role_bindings", "roles", "zones")
	defer changed.Close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := c.Round(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("zones were not told who may log in in them while they are cut off", "error", err, "again_in", every)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-changed.C():
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(gather):
			}
		}
	}
}

// Round brings every zone up to date.
func (c *Controller) Round(ctx context.Context) error {
	var changes []*commandv1.SetLocalOperators
	var failed error // of some: the others are told all the same
	err := c.Reader.View(ctx, func(tx *state.Tx) error {
		changes, failed = nil, nil
		for zone, err := range tx.Zones.All(nil) {
			if err != nil {
				return err
			}
			if s := zone.GetState(); s == apiv1.Zone_RETIRED || s == apiv1.Zone_QUARANTINED || len(zone.GetSealingKey()) == 0 {
				continue
			}
			change, err := c.change(tx, zone)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("zone %s: %w", zone.GetName(), err))
			}
			if len(change.GetOperators())+len(change.GetRemoved()) > 0 {
				changes = append(changes, change)
			}
		}
		return nil
	})
	for _, change := range changes {
		if err := c.propose(ctx, change); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return errors.Join(err, failed)
}

// change is what a zone is to be told now, at most atOnce operators; the next round tells the rest. With an error it is what can be told: that
// somebody is an operator no more always can.
func (c *Controller) change(tx *state.Tx, zone *apiv1.Zone) (*commandv1.SetLocalOperators, error) {
	told := map[string]*commandv1.LocalOperator{}
	have, err := tx.LocalOperators(zone.GetId())
	if err != nil {
		return nil, err
	}
	for _, m := range have {
		told[m.GetUserId()] = m
	}
	all, err := c.Rights.Operators(tx, zone, c.Now())
	if err != nil {
		return nil, err
	}
	if over := len(all) - state.MaxLocalOperators; over > 0 {
		c.Log.Warn("a zone has more operators than can log in in it while it is cut off; the last by name cannot", "zone", zone.GetName(), "left_out", over)
		all = all[:state.MaxLocalOperators]
	}
	out := &commandv1.SetLocalOperators{ZoneId: zone.GetId()}
	var failed error
	for _, o := range all {
		next, err := c.operator(tx, zone, o, told[o.GetId()])
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("operator %s: %w", o.GetName(), err))
			continue // and what the zone was told of them before counts no more
		}
		if next == nil {
			continue
		}
		delete(told, o.GetId())
		if len(next.GetSealed()) > 0 && len(out.GetOperators()) < atOnce {
			out.Operators = append(out.Operators, next)
		}
	}
	for id := range told {
		out.Removed = append(out.Removed, id)
	}
	slices.Sort(out.Removed)
	return out, failed
}

// operator is what a zone is to be told of an operator, without what is sealed where it has been told that; nil of one who has no password
// of their own.
func (c *Controller) operator(tx *state.Tx, zone *apiv1.Zone, o rights.Operator, told *commandv1.LocalOperator) (*commandv1.LocalOperator, error) {
	kept, err := tx.Credentials(o.GetId())
	if errors.Is(err, state.ErrNotFound) || err == nil && len(kept.GetSealedLocalRoot()) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	root, err := c.Unseal(credential.LocalRootRole(o.GetId()), kept.GetSealedLocalRoot())
	if err != nil {
		return nil, err
	}
	key, err := locallogin.Key(root, zone.GetId())
	if err != nil {
		return nil, err
	}
	says := &linkv1.Operator{
		User: o.GetName(), UserId: o.GetId(), Salt: kept.GetLocalSalt(), PublicKey: key.Public().(ed25519.PublicKey),
		DeviceNeeded: len(kept.GetSealedAuthenticator()) > 0, Permissions: o.Permissions,
	}
	for _, d := range kept.GetDevices() {
		says.Devices = append(says.Devices, locallogin.Device(d.GetHash(), zone.GetId()))
	}
	if !o.Until.IsZero() {
		says.Until = timestamppb.New(o.Until)
	}
	plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(says)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, root)
	mac.Write(zone.GetSealingKey())
	mac.Write(plain)
	out := &commandv1.LocalOperator{ZoneId: zone.GetId(), UserId: o.GetId(), Fingerprint: mac.Sum(nil), Credentials: kept.GetRevision()}
	if bytes.Equal(out.GetFingerprint(), told.GetFingerprint()) {
		return out, nil
	}
	out.Sealed, err = sealed.Message(zone.GetSealingKey(), sealed.ForOperator(zone.GetId(), o.GetId()), says)
	return out, err
}

func (c *Controller) propose(ctx context.Context, change *commandv1.SetLocalOperators) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	result, err := c.Proposer.Propose(ctx, &commandv1.Command{Id: id[:], Actor: actor, Body: &commandv1.Command_SetLocalOperators{SetLocalOperators: change}})
	if err != nil {
		return err
	}
	return problem.FromProto(result.GetProblem())
}
