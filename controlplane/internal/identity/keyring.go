package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/pki"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// intermediates are the authorities below the root.
var intermediates = []string{pki.AuthorityServers, pki.AuthorityBrokers, pki.AuthorityLinks, pki.AuthorityPeople}

// Admin is an administrator's certificate as it is handed out: chain in DER, leaf first, and key.
type Admin struct {
	Chain [][]byte
	Key   crypto.Signer
}

// Begin makes a federation's authorities, this server's first certificate, and one for its first administrator. The keyring
// it returns is for the Bootstrap command; the sealing key stays in the key folder.
func (k *Keeper) Begin(federation, serverID, admin string) (*commandv1.Keyring, *Admin, error) {
	if k.holder.Peer() != nil {
		return nil, nil, fmt.Errorf("%s belongs to federation %s already; to begin anew, choose another data folder", k.Dir, k.holder.Peer().Federation)
	}
	sealing := pki.NewSealKey()
	root, err := pki.NewAuthority(pki.AuthorityRoot, federation, nil, k.Now())
	if err != nil {
		return nil, nil, err
	}
	authorities := []*pki.Authority{root}
	byRole := map[string]*pki.Authority{}
	for _, role := range intermediates {
		a, err := pki.NewAuthority(role, federation, root, k.Now())
		if err != nil {
			return nil, nil, err
		}
		authorities, byRole[role] = append(authorities, a), a
	}
	ring, err := sealKeyring(authorities, sealing)
	if err != nil {
		return nil, nil, err
	}
	first, err := newSealingKey(sealing, k.Now())
	if err != nil {
		return nil, nil, err
	}
	ring.SealingKeys = append(ring.SealingKeys, first)
	chain, err := k.issueServerFrom(byRole[pki.AuthorityServers], serverID, k.holder.Key().Public())
	if err != nil {
		return nil, nil, err
	}
	person, err := issueAdmin(byRole[pki.AuthorityPeople], admin, k.Now)
	if err != nil {
		return nil, nil, err
	}
	if err := k.setSealingKey(sealing); err != nil {
		return nil, nil, err
	}
	return ring, person, k.holder.Set(chain)
}

// issueAdmin makes a key and a certificate for an administrator.
func issueAdmin(people *pki.Authority, name string, now clock) (*Admin, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := pki.AdminID(people.Federation, name)
	if err != nil {
		return nil, err
	}
	chain, err := people.Issue(key.Public(), id, pki.IssueOptions{Now: now()})
	if err != nil {
		return nil, err
	}
	return &Admin{chain, key}, nil
}

func sealKeyring(authorities []*pki.Authority, sealing []byte) (*commandv1.Keyring, error) {
	ring := &commandv1.Keyring{}
	for _, a := range authorities {
		sealed, err := sealAuthority(a, sealing)
		if err != nil {
			return nil, err
		}
		ring.Authorities = append(ring.Authorities, sealed)
	}
	return ring, nil
}

func sealAuthority(a *pki.Authority, sealing []byte) (*commandv1.Authority, error) {
	key, err := a.MarshalKey()
	if err != nil {
		return nil, err
	}
	sealed, err := pki.Seal(sealing, sealRole(a.Role), key)
	return &commandv1.Authority{Role: a.Role, Certificate: a.Certificate.Raw, SealedKey: sealed}, err
}

// openKeyring opens every authority of a keyring; of retired ones there is no key. The root comes first in it.
func openKeyring(ring *commandv1.Keyring, sealing []byte) (map[string][]*pki.Authority, error) {
	loaded := map[string][]*pki.Authority{}
	var root *pki.Authority
	for _, a := range ring.GetAuthorities() {
		var key []byte
		if len(a.GetSealedKey()) > 0 {
			var err error
			if key, err = pki.Open(sealing, sealRole(a.GetRole()), a.GetSealedKey()); err != nil {
				return nil, fmt.Errorf("the key of authority %s does not open: the sealing key in this server's key folder is not the federation's: %w", a.GetRole(), err)
			}
		}
		authority, err := pki.LoadAuthority(a.GetCertificate(), key, root)
		if err != nil {
			return nil, fmt.Errorf("authority %s: %w", a.GetRole(), err)
		}
		if root == nil {
			root = authority
		}
		loaded[a.GetRole()] = append(loaded[a.GetRole()], authority)
	}
	return loaded, nil
}

// sealRole tells the sealed key of one authority from that of another, and from sealed secrets of other kinds.
func sealRole(role string) string { return "authority/" + role }

// tokenSealRole is the sealing role of a join token's secret.
func tokenSealRole(id string) string { return "join-token/" + id }

func digestOf(ring *commandv1.Keyring) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(ring)
	if err != nil {
		return nil
	}
	d := sha256.Sum256(b)
	return d[:]
}
