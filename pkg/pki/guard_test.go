package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
)

const aYear = 365 * 24 * time.Hour

// newHolder is a holder with a certificate issued at a time.
func newHolder(t testing.TB, f *federation, role pki.Role, issued time.Time) *pki.Holder {
	t.Helper()
	h := must(pki.LoadOrCreate(t.TempDir(), string(role)))
	a, id := f.links, f.agent(t, "z1", "a1")
	switch role {
	case pki.RoleServer:
		a, id = f.servers, must(pki.ServerID(f.name, "s1"))
	case pki.RoleBroker:
		a, id = f.brokers, must(pki.BrokerID(f.name, "b1"))
	}
	if err := h.Set(must(a.Issue(h.Key().Public(), id, pki.IssueOptions{Now: issued}))); err != nil {
		t.Fatal(err)
	}
	return h
}

// shake runs a handshake and an echo of one byte, and returns the server's view and both errors.
func shake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	b := must(net.Dial("tcp", l.Addr().String()))
	a := must(l.Accept())
	done := make(chan error, 1)
	s := tls.Server(a, server)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	b.Close()
	serverErr = <-done
	return s.ConnectionState(), serverErr, clientErr
}

func TestBothEndsKnowEachOther(t *testing.T) {
	f := newFederation(t, "naru.test", time.Now())
	server, broker := newHolder(t, f, pki.RoleServer, time.Now()), newHolder(t, f, pki.RoleBroker, time.Now())
	guard := &pki.Guard{Root: broker.Root, Want: []pki.Role{pki.RoleServer}}
	state, serverErr, clientErr := shake(t, guard.Server(broker.TLSCertificate), pki.ClientTLS(server, server.Root, pki.RoleBroker))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if peer, err := guard.Peer(state); err != nil || peer.ServerID != "s1" {
		t.Errorf("the broker sees %+v, %v", peer, err)
	}
	if state.Version != tls.VersionTLS13 || state.DidResume {
		t.Errorf("TLS %x, resumed %v", state.Version, state.DidResume)
	}
}

func TestAtAServerOnlyPort(t *testing.T) {
	now := time.Now()
	f, foreign := newFederation(t, "naru.test", now.Add(-aYear)), newFederation(t, "naru.test", now.Add(-aYear))
	server := newHolder(t, f, pki.RoleServer, now)
	port := pki.ServerTLS(server, server.Root, pki.RoleServer)
	for name, c := range map[string]struct {
		who  *pki.Holder
		want error
	}{
		"a server enters":                 {newHolder(t, f, pki.RoleServer, now), nil},
		"an agent is refused":             {newHolder(t, f, pki.RoleAgent, now), pki.ErrRole},
		"a broker is refused":             {newHolder(t, f, pki.RoleBroker, now), pki.ErrRole},
		"a foreign server is refused":     {newHolder(t, foreign, pki.RoleServer, now), pki.ErrUntrusted},
		"an expired server is refused":    {newHolder(t, f, pki.RoleServer, now.Add(-40*24*time.Hour)), pki.ErrExpired},
		"a server of tomorrow is refused": {newHolder(t, f, pki.RoleServer, now.Add(24*time.Hour)), pki.ErrNotYetValid},
	} {
		t.Run(name, func(t *testing.T) {
			client := (&pki.Guard{Root: f.rootCert, Want: []pki.Role{pki.RoleServer}}).Client(c.who.TLSCertificate)
			_, err, clientErr := shake(t, port, client)
			if !errors.Is(err, c.want) || (c.want == nil) != (clientErr == nil) {
				t.Errorf("server: %v, client: %v", err, clientErr)
			}
		})
	}
	t.Run("nobody is refused", func(t *testing.T) {
		if _, err, _ := shake(t, port, (&pki.Guard{Root: f.rootCert}).Client(nil)); err == nil {
			t.Error("let in without a certificate")
		}
	})
	t.Run("an older TLS is refused", func(t *testing.T) {
		old := (&pki.Guard{Root: f.rootCert}).Client(server.TLSCertificate)
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if _, err, _ := shake(t, port, old); err == nil {
			t.Error("let in with TLS 1.2")
		}
	})
}

func TestAGuardThatIsLenientSaysWhoCame(t *testing.T) {
	now := time.Now()
	f := newFederation(t, "naru.test", now.Add(-aYear))
	broker := newHolder(t, f, pki.RoleBroker, now)
	guard := &pki.Guard{Root: broker.Root, Want: []pki.Role{pki.RoleAgent}, AllowAbsent: true, AllowExpired: true}
	port := guard.Server(broker.TLSCertificate)
	dial := &pki.Guard{Pin: pki.Pin(f.rootCert()), Want: []pki.Role{pki.RoleBroker}}

	state, err, _ := shake(t, port, dial.Client(nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guard.Peer(state); !errors.Is(err, pki.ErrNoPeer) {
		t.Errorf("nobody came: %v", err)
	}
	state, err, _ = shake(t, port, dial.Client(newHolder(t, f, pki.RoleAgent, now.Add(-48*time.Hour)).TLSCertificate))
	if err != nil {
		t.Fatal(err)
	}
	if peer, err := guard.Peer(state); !errors.Is(err, pki.ErrExpired) || peer == nil || !peer.Expired {
		t.Errorf("an expired agent came: %+v, %v", peer, err)
	}
	_, err, _ = shake(t, port, dial.Client(newHolder(t, f, pki.RoleServer, now).TLSCertificate))
	if !errors.Is(err, pki.ErrRole) {
		t.Errorf("a server came: %v", err)
	}
}

func TestWhoExpiresWhileConnectedIsSeenAsExpired(t *testing.T) {
	now := time.Now()
	f := newFederation(t, "naru.test", now.Add(-aYear))
	broker := newHolder(t, f, pki.RoleBroker, now)
	clock := now
	guard := &pki.Guard{Root: broker.Root, Want: []pki.Role{pki.RoleAgent}, Now: func() time.Time { return clock }}
	state, err, _ := shake(t, guard.Server(broker.TLSCertificate), pki.ClientTLS(newHolder(t, f, pki.RoleAgent, now), f.rootCert, pki.RoleBroker))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guard.Peer(state); err != nil {
		t.Error(err)
	}
	clock = now.Add(25 * time.Hour)
	if peer, err := guard.Peer(state); !errors.Is(err, pki.ErrExpired) || peer.Agent != "a1" {
		t.Errorf("a day later: %+v, %v", peer, err)
	}
}

func TestADiallerTakesOnlyThePinnedRootOrKey(t *testing.T) {
	now := time.Now()
	f, foreign := newFederation(t, "naru.test", now.Add(-aYear)), newFederation(t, "naru.test", now.Add(-aYear))
	broker, evil, server := newHolder(t, f, pki.RoleBroker, now), newHolder(t, foreign, pki.RoleBroker, now), newHolder(t, f, pki.RoleServer, now)
	open := func(own func() (*tls.Certificate, error)) *tls.Config {
		return (&pki.Guard{Root: func() *x509.Certificate { return nil }, AllowAbsent: true}).Server(own)
	}
	byPin := (&pki.Guard{Pin: pki.Pin(f.rootCert()), Want: []pki.Role{pki.RoleBroker}}).Client(nil)
	byKey := pki.KeyClient(broker.Fingerprint(), nil)
	for name, c := range map[string]struct {
		server func() (*tls.Certificate, error)
		client *tls.Config
		good   bool
	}{
		"the pinned root":                  {broker.TLSCertificate, byPin, true},
		"another root":                     {evil.TLSCertificate, byPin, false},
		"a server in the broker's place":   {server.TLSCertificate, byPin, false},
		"a bare key under a pinned root":   {broker.SelfSigned, byPin, false},
		"the pinned key":                   {broker.TLSCertificate, byKey, true},
		"the pinned key, not yet enrolled": {broker.SelfSigned, byKey, true},
		"another key":                      {evil.SelfSigned, byKey, false},
		"another key with a good chain":    {server.TLSCertificate, byKey, false},
	} {
		if _, _, err := shake(t, open(c.server), c.client); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
