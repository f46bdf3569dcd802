// Package identity is who an agent is: towards the federation by its link certificate, and inside its zone by the zone's own
// authority, which every agent of the zone holds and which nobody outside knows. What the zone's authority issues is
// renewed without the link.
package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naru-project/naru/pkg/pki"
)

// Options say who this agent is.
type Options struct {
	// Folder of the keys.
	Dir string
	// Name of the agent, unique in its zone.
	Agent string
	// DNS names and addresses in the edge's certificate.
	EdgeNames []string
	EdgeIPs   []net.IP
	Log       *slog.Logger
	// Now is time.Now where it is nil.
	Now func() time.Time
}

// Identity is an agent's keys and certificates. Safe for concurrent use once it has been founded or has entered.
type Identity struct {
	Options
	// Link is towards the federation; Member inside the zone; Edge towards the zone's users.
	Link, Member, Edge *pki.Holder

	zone atomic.Pointer[zone] // nil before it is founded or entered
	// etcdBelieves is what the zone's etcd in this process believes: it reads its authorities when it starts.
	etcdBelieves []*x509.Certificate

	changing sync.Mutex                  // what is on disk
	others   map[string]*tls.Certificate // for hosts that do not know the issuing authority yet, by authority
	warned   map[string]bool             // of authorities that etcd does not believe
}

// Files of the key folder besides those of the holders.
const (
	authorityFile = "zone-ca.crt"
	secretsFile   = "zone-secrets.pb"
)

// Open opens the key folder, and makes the keys that are missing.
func Open(o Options) (*Identity, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &Identity{Options: o, others: map[string]*tls.Certificate{}, warned: map[string]bool{}}
	for name, holder := range map[string]**pki.Holder{"link": &i.Link, "member": &i.Member, "edge": &i.Edge} {
		options := []pki.HolderOption{pki.WithClock(o.Now), pki.WithLogger(o.Log)}
		if name != "link" {
			options = append(options, pki.WithSuccession(i.believes))
		}
		h, err := pki.LoadOrCreate(o.Dir, name, options...)
		if err != nil {
			return nil, err
		}
		*holder = h
	}
	z, err := i.readZone()
	if err != nil || z == nil {
		return i, err
	}
	i.zone.Store(z)
	i.etcdBelieves = i.Roots()
	return i, nil
}

// Joined reports whether the agent has been let into the federation.
func (i *Identity) Joined() bool { return i.Link.Peer() != nil }

// ZoneID is the id of the zone, as the link certificate has it; empty before the agent has joined.
func (i *Identity) ZoneID() string {
	if p := i.Link.Peer(); p != nil {
		return p.ZoneID
	}
	return ""
}

// Federation is the federation's trust domain; empty before the agent has joined.
func (i *Identity) Federation() string {
	if p := i.Link.Peer(); p != nil {
		return p.Federation
	}
	return ""
}

// InZone reports whether the agent holds the zone's authority.
func (i *Identity) InZone() bool { return i.zone.Load() != nil }

// Root is the certificate of the zone's authority that issues now; nil before the agent holds it.
func (i *Identity) Root() *x509.Certificate {
	if z := i.zone.Load(); z != nil {
		return z.issuing(i.Now()).Certificate
	}
	return nil
}

// Roots are the certificates of the zone's authorities that are believed now, that of the issuing one first.
func (i *Identity) Roots() []*x509.Certificate { return i.zone.Load().roots(i.Now()) }

func (i *Identity) believes(root *x509.Certificate) bool {
	return slices.ContainsFunc(i.Roots(), root.Equal)
}

// AuthorityFile is the PEM file with the certificates of the zone's authorities that are believed.
func (i *Identity) AuthorityFile() string { return filepath.Join(i.Dir, authorityFile) }

// HolderFiles are the PEM files of a holder: chain and key.
func (i *Identity) HolderFiles(name string) (certificate, key string) {
	return filepath.Join(i.Dir, name+".crt"), filepath.Join(i.Dir, name+".key")
}

// GossipKey encrypts what agents of the zone tell one another: 32 bytes.
func (i *Identity) GossipKey() []byte { return i.zone.Load().gossip }

// WitnessSeed is that of the key with which the zone countersigns the control plane's audit log.
func (i *Identity) WitnessSeed() []byte { return i.zone.Load().witness }

// SealingKey is the private key (X25519) of what is sealed to the zone.
func (i *Identity) SealingKey() ([]byte, error) { return i.derived("naru: sealed to the zone") }

// ChallengeKey is that by which an agent of the zone knows a challenge of another one.
func (i *Identity) ChallengeKey() ([]byte, error) {
	return i.derived("naru: challenges of local logins")
}

func (i *Identity) derived(purpose string) ([]byte, error) {
	seed := i.WitnessSeed()
	if len(seed) == 0 {
		return nil, errors.New("the zone has no secret of its own: its first agent was of an older version; found it anew")
	}
	return hkdf.Expand(sha256.New, seed, purpose, 32)
}

// EtcdName is the DNS name in the certificate of every agent of the zone, and of nobody else's.
func (i *Identity) EtcdName() string {
	return "agents." + pki.ZoneDomain(i.Federation(), i.ZoneID())
}

// Found makes the zone's authority: the zone's first agent does so once, after it has joined the federation.
func (i *Identity) Found() error {
	a, err := pki.NewAuthority(pki.AuthorityZone, pki.ZoneDomain(i.Federation(), i.ZoneID()), nil, i.Now())
	if err != nil {
		return err
	}
	gossip, witness := make([]byte, 32), make([]byte, ed25519.SeedSize)
	rand.Read(gossip)
	rand.Read(witness)
	return i.hold(&zone{authorities: []authority{{Authority: a}}, gossip: gossip, witness: witness})
}

// hold takes the zone's secrets for the first time, and issues this agent its certificates.
func (i *Identity) hold(z *zone) error {
	if err := i.take(z); err != nil {
		return err
	}
	i.etcdBelieves = i.Roots()
	return i.Reissue()
}

// Reissue issues this agent's certificates inside the zone now, with the names it is configured with.
func (i *Identity) Reissue() error {
	for _, h := range []struct {
		holder *pki.Holder
		issue  func(csr []byte) ([][]byte, error)
	}{{i.Member, i.issueMember}, {i.Edge, i.issueEdge}} {
		csr, err := h.holder.CSR()
		if err != nil {
			return err
		}
		chain, err := h.issue(csr)
		if err != nil {
			return err
		}
		if err := h.holder.Set(chain); err != nil {
			return err
		}
	}
	return nil
}

// issueMember issues this agent its certificate. The authority is the newest that the etcd in this process believes: with
// another's it would shut itself out.
func (i *Identity) issueMember(csr []byte) ([][]byte, error) {
	return i.memberChain(i.memberAuthority(), i.Agent, csr)
}

func (i *Identity) memberAuthority() *pki.Authority {
	z, now := i.zone.Load(), i.Now()
	for _, a := range slices.Backward(z.authorities) {
		if !now.Before(a.from) && slices.ContainsFunc(i.etcdBelieves, a.Certificate.Equal) {
			return a.Authority
		}
	}
	return z.issuing(now).Authority
}

// memberChain issues an agent of the zone its certificate.
func (i *Identity) memberChain(by *pki.Authority, agent string, csr []byte) ([][]byte, error) {
	key, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	id, err := pki.MemberID(i.Federation(), i.ZoneID(), agent)
	if err != nil {
		return nil, err
	}
	return by.Issue(key, id, pki.IssueOptions{DNS: []string{i.EtcdName()}, Now: i.Now()})
}

func (i *Identity) issueEdge(csr []byte) ([][]byte, error) {
	key, err := pki.KeyOfCSR(csr)
	if err != nil {
		return nil, err
	}
	id, err := pki.EdgeID(i.Federation(), i.ZoneID(), i.Agent)
	if err != nil {
		return nil, err
	}
	return i.issuing().Issue(key, id, pki.IssueOptions{DNS: i.EdgeNames, IPs: i.EdgeIPs, Now: i.Now()})
}

// IssueLibvirt issues a host's hypervisor a certificate, into the files that libvirt looks for: servercert.pem,
// serverkey.pem, cacert.pem in dir. The key is made here and lies nowhere else.
func (i *Identity) IssueLibvirt(host string, ip net.IP, dir string) error {
	h, err := pki.LoadOrCreate(dir, "server", pki.WithClock(i.Now))
	if err != nil {
		return err
	}
	id, err := pki.LibvirtID(i.Federation(), i.ZoneID(), host)
	if err != nil {
		return err
	}
	chain, err := i.issuing().Issue(h.Key().Public(), id, pki.IssueOptions{DNS: []string{host}, IPs: []net.IP{ip}, Now: i.Now()})
	if err != nil {
		return err
	}
	if err := h.Set(chain); err != nil {
		return err
	}
	for from, to := range map[string]string{"server.crt": "servercert.pem", "server.key": "serverkey.pem"} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cacert.pem"), i.RootPEM(), 0o644)
}

func (i *Identity) issuing() *pki.Authority { return i.zone.Load().issuing(i.Now()).Authority }

// RootPEM is the certificates of the zone's authorities that are believed, as clients of the edge and hosts want them.
func (i *Identity) RootPEM() []byte { return i.pemOf(i.zone.Load()) }

// tendEvery is how often the agent looks whether the zone has another authority.
const tendEvery = time.Minute

// Run renews what the zone's authority has issued to this agent, until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	if !i.InZone() {
		return errors.New("the agent does not hold the zone's authority yet")
	}
	g, ctx := errgroup.WithContext(ctx)
	for holder, issue := range map[*pki.Holder]func([]byte) ([][]byte, error){i.Member: i.issueMember, i.Edge: i.issueEdge} {
		g.Go(func() error {
			return holder.Run(ctx, func(_ context.Context, csr []byte) ([][]byte, error) { return issue(csr) })
		})
	}
	g.Go(func() error {
		t := time.NewTicker(tendEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
			}
			if err := i.tend(); err != nil {
				i.Log.Warn("the zone's authorities could not be looked after", "error", err, "again_in", tendEvery)
			}
		}
	})
	return g.Wait()
}

func errNotInZone(dir string) error {
	return fmt.Errorf("%s: the agent has not joined a zone yet; join with: naru-zoneagent join", dir)
}
