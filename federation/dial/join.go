package dial

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Waits between two times of asking to be let in.
const (
	firstAsk = 2 * time.Second
	lastAsk  = 10 * time.Second
)

// Join asks with a token to be let in as the zone's agent of this name, again and again until an administrator has
// accepted it, then gives the holder its certificate and returns the zone's name. waiting, if not nil, is called once,
// when the control plane has taken note: the time to show the key's fingerprint to whoever is to accept. A refusal ends
// it; a broker or control plane that cannot be reached does not.
func (d *Dialer) Join(ctx context.Context, token pki.JoinToken, agent string, waiting func()) (zone string, err error) {
	request, err := d.joinRequest(token, agent)
	if err != nil {
		return "", err
	}
	// Nobody is known yet but the federation's root, by its pin in the token.
	config := (&pki.Guard{Pin: token.Pin, Want: []pki.Role{pki.RoleBroker}}).Client(nil)
	for wait := firstAsk; ; wait = min(2*wait, lastAsk) {
		var answer *linkv1.JoinResponse
		err := d.ask(ctx, config, func(ctx context.Context, leg linkv1.ZoneLegServiceClient) (err error) {
			answer, err = leg.Join(ctx, request)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err != nil && !passing(err):
			return "", fmt.Errorf("join: %w", err)
		case err != nil:
			d.log.Warn("cannot ask to join, asking again", "error", err)
		case !answer.Pending:
			return answer.GetCertificate().GetZone(), d.accept(answer.GetCertificate().GetChain(), token, agent)
		case waiting != nil:
			waiting()
			waiting = nil
		}
		timer := time.NewTimer(wait/2 + mathrand.N(wait)/2)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", context.Cause(ctx)
		}
	}
}

// joinRequest proves that the token's secret is known, and keeps it here.
func (d *Dialer) joinRequest(token pki.JoinToken, agent string) (*linkv1.JoinRequest, error) {
	csr, err := d.config.Holder.CSR()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails
	return &linkv1.JoinRequest{
		TokenId: token.ID, Agent: agent, Csr: csr, Nonce: nonce,
		Mac: pki.MAC(token.Secret, []byte(token.ID), []byte(agent), csr, nonce),
	}, nil
}

// accept takes the first certificate, if it is what was asked for.
func (d *Dialer) accept(chain [][]byte, token pki.JoinToken, agent string) error {
	root, err := pki.RootByPin(chain, token.Pin)
	if err != nil {
		return fmt.Errorf("join: the certificate that was given: %w", err)
	}
	peer, err := pki.Verify(chain, root, time.Now(), pki.RoleAgent)
	if peer == nil {
		return fmt.Errorf("join: the certificate that was given: %w", err)
	}
	if peer.Agent != agent {
		return fmt.Errorf("join: the certificate that was given is for %s, not for an agent %q", peer.ID, agent)
	}
	return d.config.Holder.Set(chain)
}
