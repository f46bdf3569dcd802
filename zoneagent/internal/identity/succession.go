package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/pki"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// HostCertificateLife is that of what IssueLibvirt issues, the longest-lived of a zone's certificates.
const HostCertificateLife = 365 * 24 * time.Hour

// Replace gives the zone its next authority. It is believed as soon as an agent hears of it, and issues from a time on; those
// before it are believed for a while more, so that what they issued can be replaced.
func (i *Identity) Replace(issuesIn, oldTrustedFor time.Duration) error {
	was, now := i.zone.Load(), i.Now()
	if last := was.authorities[len(was.authorities)-1]; now.Before(last.from) {
		return fmt.Errorf("the zone has its next authority already, which issues from %s on; replace that one then", last.from.UTC().Format(time.RFC3339))
	}
	if issuesIn < 0 || oldTrustedFor < 0 {
		return fmt.Errorf("an authority cannot begin or end in the past")
	}
	next, err := pki.NewAuthority(pki.AuthorityZone, was.authorities[0].Federation, nil, now)
	if err != nil {
		return err
	}
	z := &zone{gossip: was.gossip, witness: was.witness}
	for _, a := range was.authorities {
		z.authorities = append(z.authorities, authority{a.Authority, a.from, now.Add(issuesIn + oldTrustedFor)})
	}
	z.authorities = append(z.authorities, authority{Authority: next, from: now.Add(issuesIn)})
	return i.take(z)
}

// zoneAuthorities is the purpose under which authorities pass from agent to agent.
const zoneAuthorities = "zone authorities"

// AskAuthorities makes a request to another agent for what it knows of the zone's authorities, and a function that takes the
// answer in.
func (i *Identity) AskAuthorities() (*zonev1.AuthoritiesRequest, func(*zonev1.AuthoritiesResponse) error, error) {
	handover, err := pki.NewHandover()
	if err != nil {
		return nil, nil, err
	}
	r := &zonev1.AuthoritiesRequest{HpkeKey: handover.PublicKey()}
	return r, func(answer *zonev1.AuthoritiesResponse) error {
		b, err := handover.Open(zoneAuthorities, r.GetHpkeKey(), answer.GetSealedSecrets())
		if err != nil {
			return err
		}
		secrets := &zonev1.Secrets{}
		if err := proto.Unmarshal(b, secrets); err != nil {
			return fmt.Errorf("%s: %w", zoneAuthorities, err)
		}
		other, err := zoneOf(secrets, i.Root().Raw)
		if err != nil {
			return fmt.Errorf("%s: %w", zoneAuthorities, err)
		}
		if err := i.take(other); err != nil {
			return err
		}
		return i.tend()
	}, nil
}

// TellAuthorities answers another agent of the zone.
func (i *Identity) TellAuthorities(r *zonev1.AuthoritiesRequest) (*zonev1.AuthoritiesResponse, error) {
	sealed, err := i.zone.Load().sealTo(r.GetHpkeKey(), zoneAuthorities, r.GetHpkeKey())
	return &zonev1.AuthoritiesResponse{SealedSecrets: sealed}, err
}

// tend takes in what another process has written into the key folder, lets go of authorities whose time is over, and reissues
// this agent's certificates when another authority issues now.
func (i *Identity) tend() error {
	disk, err := i.readZone()
	if err != nil {
		return err
	}
	if err := i.take(disk); err != nil {
		return err
	}
	i.warn()
	if i.Member.Root().Equal(i.memberAuthority().Certificate) && i.Edge.Root().Equal(i.Root()) {
		return nil
	}
	return i.Reissue()
}

// warn tells, once for each authority, that the etcd in this process does not believe it.
func (i *Identity) warn() {
	i.changing.Lock()
	defer i.changing.Unlock()
	for _, a := range i.zone.Load().authorities {
		if slices.ContainsFunc(i.etcdBelieves, a.Certificate.Equal) || i.warned[pki.Pin(a.Certificate)] {
			continue
		}
		i.warned[pki.Pin(a.Certificate)] = true
		i.Log.Warn("the zone has another authority, which the etcd in this agent believes only after a restart: restart the agent before it issues",
			"pin", pki.Pin(a.Certificate), "issues_from", a.from)
	}
}

// HostCertificates are what this agent shows to hosts: its own certificate, and one of each other authority that is believed,
// for hosts that do not know the one that issues now. A host names the authorities that it knows.
func (i *Identity) HostCertificates() ([]tls.Certificate, error) {
	own, err := i.Member.TLSCertificate()
	if err != nil {
		return nil, err
	}
	shown := []tls.Certificate{*own}
	z, now := i.zone.Load(), i.Now()
	i.changing.Lock()
	defer i.changing.Unlock()
	for _, a := range slices.Backward(z.authorities) {
		if a.Certificate.Equal(i.Member.Root()) || now.Before(a.from) {
			continue
		}
		pin := pki.Pin(a.Certificate)
		c := i.others[pin]
		if c == nil || now.After(c.Leaf.NotAfter.Add(-24*time.Hour)) {
			if c, err = i.memberOf(a.Authority); err != nil {
				return nil, err
			}
			i.others[pin] = c
		}
		shown = append(shown, *c)
	}
	return shown, nil
}

// memberOf is this agent's certificate of one authority.
func (i *Identity) memberOf(a *pki.Authority) (*tls.Certificate, error) {
	csr, err := i.Member.CSR()
	if err != nil {
		return nil, err
	}
	chain, err := i.memberChain(a, i.Agent, csr)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	return &tls.Certificate{Certificate: chain, PrivateKey: i.Member.Key(), Leaf: leaf}, err
}
