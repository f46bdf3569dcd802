package zonehub

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// inside is the id and the name of the broker inside this process; a zone that names no broker stands behind it. No noun
// has this id.
const inside = "inside"

// boundary lets through a broker only those whose zone stands behind it: a token or a certificate that got into another network
// is worth nothing there.
type boundary struct {
	broker *apiv1.Broker
	hub    *Hub
}

// lets returns a FORBIDDEN problem for a zone that stands behind another broker. Of a zone that is not known others judge.
func (b boundary) lets(tx *state.Tx, zoneID string) error {
	zone, err := tx.Zones.Get(zoneID)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	name := zone.GetBroker()
	if name == "" {
		name = "inside the control plane"
	}
	if zone.GetBroker() == "" && b.broker.GetId() == inside || zone.GetBroker() == b.broker.GetName() && b.broker.GetId() != inside {
		return nil
	}
	return problem.Newf(problem.Forbidden, "Let the zone's agents dial its own broker, or change the zone's broker.",
		"zone %s stands behind broker %s, and this came through broker %s", zone.GetName(), name, b.broker.GetName())
}

type boundaryKey struct{}

// through notes by which broker a session came; admit asks that boundary.
func through(ctx context.Context, b boundary) context.Context {
	return context.WithValue(ctx, boundaryKey{}, b)
}

// boundaryRegistrar answers only who stands behind the broker that asks.
type boundaryRegistrar struct {
	hub.Registrar
	at boundary
}

func (r boundaryRegistrar) Join(ctx context.Context, in *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	err := r.at.hub.view(ctx, func(tx *state.Tx) error {
		token, err := tx.JoinToken(in.GetTokenId())
		if errors.Is(err, state.ErrNotFound) {
			return nil // others judge of it
		}
		if err != nil {
			return err
		}
		return r.at.lets(tx, token.GetZoneId())
	})
	if err != nil {
		return nil, err
	}
	return r.Registrar.Join(ctx, in)
}

func (r boundaryRegistrar) Renew(ctx context.Context, certificate []byte, in *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, problem.Newf(problem.CertificateInvalid, "Let the agent join anew with a token.", "the certificate to be renewed: %w", err)
	}
	// Whether the claim is true is verified behind this.
	err = r.at.hub.view(ctx, func(tx *state.Tx) error { return r.at.lets(tx, pki.ClaimedZone(leaf)) })
	if err != nil {
		return nil, err
	}
	return r.Registrar.Renew(ctx, certificate, in)
}
