package service

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	joinTokenTime    = time.Hour
	maxJoinTokenTime = 7 * 24 * time.Hour
)

// newJoinToken makes a token with which one agent or server may ask to join. It takes no idempotency key: what the first
// answer showed is not kept, and a second token does no harm.
func (s *Service) newJoinToken(ctx context.Context, role, zoneID string, seconds uint32) (string, *timestamppb.Timestamp, error) {
	life := joinTokenTime
	if seconds > 0 {
		life = min(time.Duration(seconds)*time.Second, maxJoinTokenTime)
	}
	expires := time.Now().Add(life).UTC().Truncate(time.Second)
	record, text, err := s.JoinTokens.NewJoinToken(role, zoneID, expires)
	if err != nil {
		return "", nil, err
	}
	_, err = s.propose(ctx, nil, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_CreateJoinToken{CreateJoinToken: &commandv1.CreateJoinToken{JoinToken: record}}
	})
	return text, record.GetExpiresAt(), err
}

// CreateJoinToken makes a token with which one agent of the zone can ask to join.
func (s zoneService) CreateJoinToken(ctx context.Context, r *apiv1.CreateJoinTokenRequest) (*apiv1.CreateJoinTokenResponse, error) {
	zone, err := s.zones.get(ctx, r.GetZone(), place{})
	if err != nil {
		return nil, err
	}
	if zone.GetState() == apiv1.Zone_RETIRED {
		return nil, problem.Newf(problem.WrongState, "Make a new zone.", "zone %s is retired", zone.GetName())
	}
	text, expires, err := s.newJoinToken(ctx, "zone", zone.GetId(), r.GetLifetimeSeconds())
	return &apiv1.CreateJoinTokenResponse{Token: text, ExpiresAt: expires}, err
}

// ListJoinRequests returns the agents that have asked to join, those that were let in included.
func (s zoneService) ListJoinRequests(ctx context.Context, r *apiv1.ListJoinRequestsRequest) (*apiv1.ListJoinRequestsResponse, error) {
	out := &apiv1.ListJoinRequestsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		out.Reset()
		if _, err := s.zones.narrowed(ctx, tx); err != nil {
			return err
		}
		zoneID := ""
		if r.GetZone() != "" {
			zone, err := s.zones.find(ctx, tx, r.GetZone(), place{})
			if err != nil {
				return err
			}
			zoneID = zone.GetId()
		}
		members, err := tx.Members(zoneID)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.GetRevoked() {
				continue
			}
			zone, err := s.zones.find(ctx, tx, m.GetZoneId(), place{})
			if problem.Is(err, problem.NotFound) || problem.Is(err, problem.Forbidden) {
				continue // another's
			}
			if err != nil {
				return err
			}
			out.JoinRequests = append(out.JoinRequests, &apiv1.JoinRequest{
				Zone: zone.GetName(), Agent: m.GetAgent(), Fingerprint: fingerprint(m.GetKey()), AskedAt: m.GetAskedAt(), Accepted: m.GetAccepted(),
			})
		}
		return nil
	})
	return out, err
}

// fingerprint writes a key's hash as the agent printed it.
func fingerprint(hash []byte) string { return "SHA256:" + base64.RawStdEncoding.EncodeToString(hash) }

// AcceptAgent lets an agent in whose fingerprint the administrator has compared with what the agent printed. Accepting one
// that is in already says so.
func (s zoneService) AcceptAgent(ctx context.Context, r *apiv1.AcceptAgentRequest) (*apiv1.AcceptAgentResponse, error) {
	const kind = "zone.accept"
	var target *apiv1.Reference
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		zone, err := s.zones.find(ctx, tx, r.GetZone(), place{})
		if err != nil {
			return nil, err
		}
		target = reference("zone", zone)
		m, err := tx.Member(zone.GetId(), r.GetAgent())
		if errors.Is(err, state.ErrNotFound) {
			return nil, problem.Newf(problem.NotFound, "naru zone requests shows who has asked.", "no agent %s has asked to join zone %s", r.GetAgent(), zone.GetName())
		}
		if err != nil {
			return nil, err
		}
		switch {
		case subtle.ConstantTimeCompare([]byte(fingerprint(m.GetKey())), []byte(r.GetFingerprint())) != 1:
			return nil, problem.Newf(problem.Invalid, "Compare it with what the agent printed. If they differ, somebody else has asked in its name: accept nothing.",
				"the key of agent %s has another fingerprint", r.GetAgent()).With("fingerprint", "is not that of the agent's key")
		case m.GetRevoked():
			return nil, problem.Newf(problem.Revoked, "Give the agent another name, or a new key.", "agent %s of zone %s has been revoked", r.GetAgent(), zone.GetName())
		case m.GetAccepted():
			return &commandv1.Result{Operation: finished(ctx, kind, target, "it was let in before")}, nil
		}
		c.Body = &commandv1.Command_AcceptJoin{AcceptJoin: &commandv1.AcceptJoin{ZoneId: zone.GetId(), Agent: m.GetAgent(), Key: m.GetKey()}}
		return nil, nil
	})
	op, err := s.ended(ctx, kind, target, result, err)
	return &apiv1.AcceptAgentResponse{Operation: op}, err
}

// RevokeZone refuses a zone's certificates, or those of one agent, from now on.
func (s zoneService) RevokeZone(ctx context.Context, r *apiv1.RevokeZoneRequest) (*apiv1.RevokeZoneResponse, error) {
	const kind = "zone.revoke"
	var target *apiv1.Reference
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		zone, err := s.zones.find(ctx, tx, r.GetZone(), place{})
		if err != nil {
			return nil, err
		}
		target = reference("zone", zone)
		if r.GetAgent() != "" {
			if _, err := tx.Member(zone.GetId(), r.GetAgent()); errors.Is(err, state.ErrNotFound) {
				return nil, problem.Newf(problem.NotFound, "naru zone requests shows which there are.", "zone %s has no agent %s", zone.GetName(), r.GetAgent())
			} else if err != nil {
				return nil, err
			}
		}
		if revoked, err := tx.IsRevoked(zone.GetId(), r.GetAgent()); err != nil {
			return nil, err
		} else if revoked {
			return &commandv1.Result{Operation: finished(ctx, kind, target, "it was revoked before")}, nil
		}
		c.Body = &commandv1.Command_Revoke{Revoke: &commandv1.Revoke{ZoneId: zone.GetId(), Agent: r.GetAgent()}}
		return nil, nil
	})
	op, err := s.ended(ctx, kind, target, result, err)
	return &apiv1.RevokeZoneResponse{Operation: op}, err
}
