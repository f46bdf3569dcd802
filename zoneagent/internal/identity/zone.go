package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/pki"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// zone is what every agent of a zone holds. It never changes; another one takes its place.
type zone struct {
	authorities []authority // oldest first, at least one
	gossip      []byte
	witness     []byte // seed of the key that countersigns the control plane's audit log
}

// authority is one of a zone's: it issues from a time on, until the next one does, and is believed for some time beyond.
type authority struct {
	*pki.Authority
	from, until time.Time // zero: always has; for ever
}

// issuing is the newest whose time to issue has come.
func (z *zone) issuing(now time.Time) authority {
	for _, a := range slices.Backward(z.authorities) {
		if !now.Before(a.from) {
			return a
		}
	}
	return z.authorities[0]
}

// roots are the certificates that are believed now, that of the issuing authority first.
func (z *zone) roots(now time.Time) []*x509.Certificate {
	issuing := z.issuing(now).Certificate
	roots := []*x509.Certificate{issuing}
	for _, a := range slices.Backward(z.authorities) {
		if a.Certificate != issuing && (a.until.IsZero() || now.Before(a.until)) {
			roots = append(roots, a.Certificate)
		}
	}
	return roots
}

// merge joins what two agents know. Of a time that differs the earlier counts, so that all come to the same, in whatever order
// they hear of it; what is not believed any more is left out.
func (z *zone) merge(other *zone, now time.Time) *zone {
	merged := &zone{gossip: z.gossip, witness: z.witness}
	for _, a := range slices.Concat(z.authorities, other.authorities) {
		at := slices.IndexFunc(merged.authorities, func(b authority) bool { return b.Certificate.Equal(a.Certificate) })
		if at < 0 {
			merged.authorities = append(merged.authorities, a)
			continue
		}
		b := &merged.authorities[at]
		if a.from.Before(b.from) {
			b.from = a.from
		}
		if b.until.IsZero() || !a.until.IsZero() && a.until.Before(b.until) {
			b.until = a.until
		}
	}
	slices.SortStableFunc(merged.authorities, func(a, b authority) int { return a.from.Compare(b.from) })
	issuing := merged.issuing(now)
	merged.authorities = slices.DeleteFunc(merged.authorities, func(a authority) bool {
		return a.Authority != issuing.Authority && !a.until.IsZero() && !now.Before(a.until)
	})
	return merged
}

// equal tells whether two hold the same.
func (z *zone) equal(other *zone) bool {
	return slices.EqualFunc(z.authorities, other.authorities, func(a, b authority) bool {
		return a.Certificate.Equal(b.Certificate) && a.from.Equal(b.from) && a.until.Equal(b.until)
	})
}

// secrets is the zone as it is written down and handed over.
func (z *zone) secrets() (*zonev1.Secrets, error) {
	s := &zonev1.Secrets{GossipKey: z.gossip, WitnessSeed: z.witness}
	for _, a := range z.authorities {
		key, err := a.MarshalKey()
		if err != nil {
			return nil, err
		}
		if s.CaKey == nil {
			s.CaKey = key
		}
		s.Authorities = append(s.Authorities, &zonev1.Authority{
			Certificate: a.Certificate.Raw, Key: key, IssuesFrom: stampOf(a.from), TrustedUntil: stampOf(a.until),
		})
	}
	return s, nil
}

// zoneOf reads secrets back. first is the certificate of the only authority where they list none.
func zoneOf(s *zonev1.Secrets, first []byte) (*zone, error) {
	z := &zone{gossip: s.GetGossipKey(), witness: s.GetWitnessSeed()}
	listed := s.GetAuthorities()
	if len(listed) == 0 {
		listed = []*zonev1.Authority{{Certificate: first, Key: s.GetCaKey()}}
	}
	for _, l := range listed {
		a, err := pki.LoadAuthority(l.GetCertificate(), l.GetKey(), nil)
		if err != nil {
			return nil, err
		}
		z.authorities = append(z.authorities, authority{a, timeOf(l.GetIssuesFrom()), timeOf(l.GetTrustedUntil())})
	}
	return z, nil
}

func stampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// take makes what somebody else knows of the zone this agent's as well, on disk first: the secrets before the certificates, so
// that a certificate without its key is never found.
func (i *Identity) take(other *zone) error {
	i.changing.Lock()
	defer i.changing.Unlock()
	z := other
	if have := i.zone.Load(); have != nil {
		if z = have.merge(other, i.Now()); z.equal(have) {
			return nil
		}
	}
	secrets, err := z.secrets()
	if err != nil {
		return err
	}
	b, err := proto.Marshal(secrets)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(i.Dir, secretsFile), b, 0o600); err != nil {
		return err
	}
	if err := writeFile(i.AuthorityFile(), i.pemOf(z), 0o644); err != nil {
		return err
	}
	i.zone.Store(z)
	return nil
}

func (i *Identity) pemOf(z *zone) []byte {
	var text bytes.Buffer
	for _, root := range z.roots(i.Now()) {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	}
	return text.Bytes()
}

// readZone reads what take wrote; nil before the agent is in the zone.
func (i *Identity) readZone() (*zone, error) {
	text, err := os.ReadFile(i.AuthorityFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate; let the agent join anew in an empty folder", i.AuthorityFile())
	}
	b, err := os.ReadFile(filepath.Join(i.Dir, secretsFile))
	if err != nil {
		return nil, err
	}
	secrets := &zonev1.Secrets{}
	if err := proto.Unmarshal(b, secrets); err != nil {
		return nil, fmt.Errorf("%s is damaged; let the agent join anew in an empty folder: %w", filepath.Join(i.Dir, secretsFile), err)
	}
	z, err := zoneOf(secrets, block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.AuthorityFile(), err)
	}
	return z, nil
}

// writeFile writes a file that appears whole, and is on disk when it does.
func writeFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
