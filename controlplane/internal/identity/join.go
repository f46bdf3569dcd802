package identity

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

type clock = func() time.Time

// Roles of a join token.
const (
	tokenForZone   = "zone"
	tokenForServer = "server"
)

// NewJoinToken makes a join token: what is recorded of it, its secret sealed, and what the administrator gets to see. role
// is zone or server; zoneID is empty for a server's.
func (k *Keeper) NewJoinToken(role, zoneID string, expires time.Time) (*commandv1.JoinToken, string, error) {
	t, err := pki.NewJoinToken(pki.Pin(k.Root()))
	if err != nil {
		return nil, "", err
	}
	sealed, err := k.Seal(tokenSealRole(t.ID), t.Secret)
	if err != nil {
		return nil, "", err
	}
	return &commandv1.JoinToken{
		Id: t.ID, Role: role, ZoneId: zoneID, SealedSecret: sealed, ExpiresAt: timestamppb.New(expires),
	}, t.String(), nil
}

// proveToken checks that whoever asks knows a token's secret, and that the token is one for role and still good. key is the
// hash of the asker's public key: a token serves the first key that uses it, and no other.
func (k *Keeper) proveToken(ctx context.Context, id, role string, key, mac []byte, parts ...[]byte) (*commandv1.JoinToken, error) {
	t, err := k.state.JoinToken(ctx, id)
	if err != nil {
		return nil, err
	}
	wrong := problem.New(problem.TokenInvalid, "the join token is not known here", "Have an administrator make a new one: naru zone token, or naru server token.")
	if t == nil || t.GetRole() != role {
		return nil, wrong
	}
	secret, err := k.Unseal(tokenSealRole(id), t.GetSealedSecret())
	if err != nil {
		return nil, fmt.Errorf("join token %s: %w", id, err)
	}
	if !pki.CheckMAC(mac, secret, parts...) {
		return nil, wrong
	}
	switch {
	case len(t.GetUsedBy()) > 0 && !bytes.Equal(t.GetUsedBy(), key):
		return nil, problem.New(problem.TokenUsed, "the join token was used by another key", "Have an administrator make a new one; each lets one in.")
	case (len(t.GetUsedBy()) == 0 || t.GetRole() == "server") && k.Now().After(t.GetExpiresAt().AsTime()):
		return nil, problem.New(problem.TokenExpired, "the join token expired at "+t.GetExpiresAt().AsTime().UTC().Format(time.RFC3339), "Have an administrator make a new one.")
	}
	return t, nil
}

// Join answers an agent that asks to be let in: pending until an administrator has accepted it, then with a certificate.
func (k *Keeper) Join(ctx context.Context, p Proposer, r *linkv1.JoinRequest) (*linkv1.JoinResponse, error) {
	pub, err := pki.KeyOfCSR(r.GetCsr())
	if err != nil {
		return nil, problem.Newf(problem.Invalid, "Let the agent make its request anew.", "the certificate request: %w", err)
	}
	key := pki.KeyHash(pub)
	t, err := k.proveToken(ctx, r.GetTokenId(), tokenForZone, key, r.GetMac(),
		[]byte(r.GetTokenId()), []byte(r.GetAgent()), r.GetCsr(), r.GetNonce())
	if err != nil {
		return nil, err
	}
	m, err := k.state.Member(ctx, t.GetZoneId(), r.GetAgent())
	if err != nil {
		return nil, err
	}
	if m == nil || !bytes.Equal(m.GetKey(), key) {
		_, err := p.Propose(ctx, &commandv1.Command{Actor: "join-token:" + t.GetId(), Body: &commandv1.Command_AskToJoin{
			AskToJoin: &commandv1.AskToJoin{TokenId: t.GetId(), Agent: r.GetAgent(), Key: key},
		}})
		return &linkv1.JoinResponse{Pending: true}, err
	}
	if !m.GetAccepted() {
		return &linkv1.JoinResponse{Pending: true}, nil
	}
	c, err := k.issueAgent(ctx, t.GetZoneId(), r.GetAgent(), pub)
	return &linkv1.JoinResponse{Certificate: c}, err
}

// issueAgent issues a link certificate to a member that is accepted, holds this key, and whose zone is active.
func (k *Keeper) issueAgent(ctx context.Context, zoneID, agent string, pub crypto.PublicKey) (*linkv1.Certificate, error) {
	name, active, err := k.state.ZoneName(ctx, zoneID)
	if err != nil {
		return nil, err
	}
	m, err := k.state.Member(ctx, zoneID, agent)
	if err != nil {
		return nil, err
	}
	if !active || m == nil || !m.GetAccepted() || m.GetRevoked() || !bytes.Equal(m.GetKey(), pki.KeyHash(pub)) {
		return nil, problem.Newf(problem.Revoked, "Let it join anew with a token: naru zone token "+name, "agent %s of zone %s has been revoked, or its zone retired", agent, name)
	}
	links, err := k.authority(ctx, pki.AuthorityLinks)
	if err != nil {
		return nil, err
	}
	id, err := pki.AgentID(links.Federation, zoneID, agent)
	if err != nil {
		return nil, err
	}
	chain, err := links.Issue(pub, id, pki.IssueOptions{TTL: k.LinkLifetime, Now: k.Now()})
	return &linkv1.Certificate{Chain: chain, Zone: name}, err
}

// Renew answers the holder of a link certificate, expired or not: the same id, for the same key. What the request says
// beyond its key is ignored.
func (k *Keeper) Renew(ctx context.Context, certificate []byte, r *linkv1.RenewRequest) (*linkv1.RenewResponse, error) {
	all, err := k.authorities(ctx)
	if err != nil {
		return nil, err
	}
	issuer, err := issuerOf(certificate, all[pki.AuthorityLinks])
	var peer *pki.Peer
	if err == nil {
		peer, err = pki.Verify([][]byte{certificate, issuer.Certificate.Raw}, k.Root(), k.Now(), pki.RoleAgent)
	}
	if err != nil && !errors.Is(err, pki.ErrExpired) {
		return nil, problem.Newf(problem.CertificateInvalid, "Let the agent join anew with a token.", "the certificate to be renewed: %w", err)
	}
	pub, err := pki.KeyOfCSR(r.GetCsr())
	if err != nil {
		return nil, problem.Newf(problem.Invalid, "", "the certificate request: %w", err)
	}
	if !bytes.Equal(pki.KeyHash(pub), pki.KeyHash(peer.Key)) {
		return nil, problem.New(problem.CertificateInvalid, "the request is not of the key whose certificate is to be renewed", "Let the agent join anew with a token.")
	}
	c, err := k.issueAgent(ctx, peer.ZoneID, peer.Agent, pub)
	return &linkv1.RenewResponse{Certificate: c}, err
}

// EnrollBroker issues a broker's certificate.
func (k *Keeper) EnrollBroker(ctx context.Context, brokerID string, csr []byte) ([][]byte, error) {
	pub, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	a, err := k.authority(ctx, pki.AuthorityBrokers)
	if err != nil {
		return nil, err
	}
	id, err := pki.BrokerID(a.Federation, brokerID)
	if err != nil {
		return nil, err
	}
	return a.Issue(pub, id, pki.IssueOptions{Now: k.Now()})
}

// sealingKeyHandover is the purpose under which the sealing key passes to a joining server.
const sealingKeyHandover = "sealing key"

// JoinServer answers a server that asks to be let in: a certificate, and the sealing key encrypted to it.
func (k *Keeper) JoinServer(ctx context.Context, p Proposer, r *commandv1.JoinServerRequest) (*commandv1.JoinServerResponse, error) {
	pub, err := pki.KeyOfCSR(r.GetCsr())
	if err != nil {
		return nil, problem.Newf(problem.Invalid, "", "the certificate request: %w", err)
	}
	key := pki.KeyHash(pub)
	t, err := k.proveToken(ctx, r.GetTokenId(), tokenForServer, key, r.GetMac(), serverJoinParts(r)...)
	if err != nil {
		return nil, err
	}
	if _, err := p.Propose(ctx, &commandv1.Command{Actor: "join-token:" + t.GetId(), Body: &commandv1.Command_AskToJoin{
		AskToJoin: &commandv1.AskToJoin{TokenId: t.GetId(), Agent: r.GetName(), Key: key},
	}}); err != nil {
		return nil, err
	}
	chain, err := k.issueServer(ctx, r.GetServerId(), r.GetCsr())
	if err != nil {
		return nil, err
	}
	sealed, err := pki.SealTo(r.GetHpkeKey(), sealingKeyHandover, r.GetCsr(), k.sealingKey())
	if err != nil {
		return nil, problem.Newf(problem.Invalid, "", "hpke_key: %w", err)
	}
	return &commandv1.JoinServerResponse{Federation: k.holder.Peer().Federation, Chain: chain, SealedKey: sealed}, nil
}

func serverJoinParts(r *commandv1.JoinServerRequest) [][]byte {
	return [][]byte{[]byte(r.GetTokenId()), []byte(r.GetName()), []byte(r.GetServerId()), r.GetCsr(), r.GetHpkeKey(), r.GetNonce()}
}

// AskToJoin makes this server's request to join, and a function that takes the answer in.
func (k *Keeper) AskToJoin(t pki.JoinToken, name, serverID string, nonce []byte) (*commandv1.JoinServerRequest, func(*commandv1.JoinServerResponse) error, error) {
	if k.holder.Peer() != nil {
		return nil, nil, fmt.Errorf("%s belongs to federation %s already; to join another, choose another data folder", k.Dir, k.holder.Peer().Federation)
	}
	csr, err := k.holder.CSR()
	if err != nil {
		return nil, nil, err
	}
	handover, err := pki.NewHandover()
	if err != nil {
		return nil, nil, err
	}
	r := &commandv1.JoinServerRequest{TokenId: t.ID, Name: name, ServerId: serverID, Csr: csr, Nonce: nonce, HpkeKey: handover.PublicKey()}
	r.Mac = pki.MAC(t.Secret, serverJoinParts(r)...)
	return r, func(answer *commandv1.JoinServerResponse) error {
		root, err := pki.RootByPin(answer.GetChain(), t.Pin)
		if err != nil {
			return err
		}
		if _, err := pki.Verify(answer.GetChain(), root, k.Now(), pki.RoleServer); err != nil {
			return err
		}
		sealing, err := handover.Open(sealingKeyHandover, csr, answer.GetSealedKey())
		if err != nil {
			return err
		}
		if err := k.setSealingKey(sealing); err != nil {
			return err
		}
		return k.holder.Set(answer.GetChain())
	}, nil
}
