package servicetest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// secrets stands for the keeper of the federation's keys. What it keeps for the state it seals, as that does.
type secrets struct {
	private, public []byte
	sealing         []byte
	root            *pki.Authority
	server          crypto.Signer
	chain           [][]byte
}

func newSecrets() (s secrets, err error) {
	if s.private, s.public, err = sealed.NewKey(); err != nil {
		return s, err
	}
	s.sealing = make([]byte, pki.SealKeySize)
	rand.Read(s.sealing) // never fails
	began := time.Now().Add(-time.Hour)
	if s.root, err = pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, began); err != nil {
		return s, err
	}
	servers, err := pki.NewAuthority(pki.AuthorityServers, "naru.test", s.root, began)
	if err != nil {
		return s, err
	}
	if s.server, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return s, err
	}
	id, err := pki.ServerID("naru.test", "server-1")
	if err != nil {
		return s, err
	}
	s.chain, err = servers.Issue(s.server.Public(), id, pki.IssueOptions{Now: time.Now()})
	return s, err
}

// Root is the authority of the federation whose servers vouch for the key to seal to.
func (w *World) Root() *pki.Authority { return w.Service.Secrets.(secrets).root }

// Pin is that of its certificate.
func (w *World) Pin() string { return pki.Pin(w.Root().Certificate) }

func (s secrets) keyring() *commandv1.Keyring {
	return &commandv1.Keyring{SealingKeys: []*commandv1.SealingKey{{Id: "key-1", PublicKey: s.public, SealedKey: []byte("sealed")}}}
}

func (s secrets) SealingKey(context.Context) (*sealed.Key, [][]byte, []byte, error) {
	key := &sealed.Key{ID: "key-1", Public: s.public, Until: time.Now().Add(time.Hour).Truncate(time.Second)}
	signature, err := key.Vouch(s.server)
	return key, s.chain, signature, err
}

func (s secrets) VouchWay(w sealed.Way) ([][]byte, []byte, error) {
	signature, err := w.Vouch(s.server)
	return s.chain, signature, err
}

func (s secrets) OpenSecrets(_ context.Context, f sealed.For, in *apiv1.Sealed) (*apiv1.Secrets, error) {
	if in.GetKeyId() != "key-1" {
		return nil, problem.New(problem.Conflict, "the key to which it was sealed is no longer good", "")
	}
	out, err := sealed.OpenSecrets(s.private, f, in)
	if err != nil {
		return nil, problem.New(problem.Invalid, "the secrets were sealed for another request, user or session", "")
	}
	return out, nil
}

func (s secrets) Seal(role string, plain []byte) ([]byte, error) {
	return pki.Seal(s.sealing, role, plain)
}

func (s secrets) Unseal(role string, sealed []byte) ([]byte, error) {
	return pki.Open(s.sealing, role, sealed)
}
