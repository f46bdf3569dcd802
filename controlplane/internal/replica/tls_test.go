package replica

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// authority issues certificates under test: a common name, and "servers" as the unit of those that are servers.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key: key, cert: cert, pool: pool}
}

func (a *authority) issue(t testing.TB, name, unit string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{unit}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dress gives a server's configuration what it needs for TLS.
func (a *authority) dress(t testing.TB, c *Config) {
	a.dressWith(c, a.issue(t, c.ServerID, "servers"))
}

func (a *authority) dressWith(c *Config, own tls.Certificate) {
	accepting := &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.pool}
	// As the composition root does it: the configuration is made for each caller.
	c.ServerTLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return accepting, nil }}
	c.ClientTLS = &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: a.pool}
	c.PeerOf = func(s tls.ConnectionState) (string, error) {
		if len(s.PeerCertificates) == 0 {
			return "", errors.New("no certificate was shown")
		}
		subject := s.PeerCertificates[0].Subject
		if len(subject.OrganizationalUnit) != 1 || subject.OrganizationalUnit[0] != "servers" {
			return "", errors.New(subject.CommonName + " is no server")
		}
		return subject.CommonName, nil
	}
}

// unhurried are timeouts for servers that speak over TLS on a busy machine, and still sooner than in the field.
var unhurried = Tuning{HeartbeatTimeout: minElection, ElectionTimeout: minElection, SegmentBytes: 1 << 20, TrailingEntries: 20}

// newTLSSite makes n servers on loopback.
func newTLSSite(t testing.TB, n int, tune func(*Config)) (*site, *authority) {
	t.Helper()
	a := newAuthority(t)
	s := &site{t: t, tune: func(c *Config) {
		c.Tuning = unhurried
		a.dress(t, c)
		if tune != nil {
			tune(c)
		}
	}}
	for i := range n {
		s.add("server-" + string(rune('1'+i))).address = freeAddress(t)
	}
	t.Cleanup(s.close)
	s.nodes[0].start()
	check(t, s.nodes[0].Bootstrap())
	s.must(s.nodes[0], bootstrapCommand())
	for _, n := range s.nodes[1:] {
		n.start()
		s.admit(n)
	}
	return s, a
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestThreeServersSpeakOverTLS(t *testing.T) {
	s, _ := newTLSSite(t, 3, nil)
	for i, n := range s.nodes {
		for j := range 10 {
			s.must(n, put(string(rune('a'+i)), string(rune('a'+j))))
		}
	}
	s.alike()
	servers, err := s.follower().Servers(t.Context())
	check(t, err)
	leaders := 0
	for _, server := range servers {
		if !server.GetHealthy() || !server.GetVoter() || server.GetName() != server.GetId() || server.GetAppliedIndex() == "" {
			t.Errorf("server list has %v", server)
		}
		if server.GetRole().String() == "LEADER" {
			leaders++
		}
	}
	if len(servers) != 3 || leaders != 1 {
		t.Errorf("%d servers, %d leaders", len(servers), leaders)
	}

	samples, err := s.follower().Samples(t.Context())
	check(t, err)
	if len(samples.GetVms()) != 3 {
		t.Errorf("each of three servers has a sample, and %d were collected", len(samples.GetVms()))
	}

	brokers, err := s.follower().Brokers(t.Context())
	check(t, err)
	if len(brokers) != 3 {
		t.Errorf("each of three servers sees a broker, and %d views were collected", len(brokers))
	}

	gone := s.follower()
	gone.crash()
	servers, err = s.leader().Servers(t.Context())
	check(t, err)
	for _, server := range servers {
		if server.GetHealthy() == (server.GetId() == gone.id) {
			t.Errorf("with %s gone the list has %v", gone.id, server)
		}
	}
}

func TestP1AServerThatIsKilledOverTLSComesBack(t *testing.T) {
	s, _ := newTLSSite(t, 3, nil)
	old := s.leader()
	old.crash()
	next := s.leader()
	for i := range 60 {
		s.must(next, put("k", time.Duration(i).String()))
	}
	check(t, next.raft.Snapshot().Error())
	old.start()
	s.must(old, put("k", "back"))
	s.alike()
}

// Consul CVE-2021-37219: a certificate of the same authority that is no server's must not speak Raft.
func TestOnlyServersSpeakRaftAndOnlyTheJoiningSpeakWithoutACertificate(t *testing.T) {
	s, a := newTLSSite(t, 1, nil)
	target := s.nodes[0].address
	agent := a.issue(t, "agent-7", "agents")
	stranger := newAuthority(t).issue(t, "server-1", "servers")
	for name, c := range map[string]*tls.Config{
		"an agent":                  {Certificates: []tls.Certificate{agent}, RootCAs: a.pool},
		"nobody":                    {RootCAs: a.pool},
		"a foreign federation":      {Certificates: []tls.Certificate{stranger}, RootCAs: a.pool},
		"who speaks neither":        {RootCAs: a.pool, NextProtos: []string{"http/1.1"}},
		"who speaks nothing at all": {RootCAs: a.pool, NextProtos: nil},
	} {
		c := c.Clone()
		if c.NextProtos == nil && name != "who speaks nothing at all" {
			c.NextProtos = []string{raftProtocol}
		}
		conn, err := tls.Dial("tcp", target, c)
		if err == nil {
			// The refusal may come after the handshake; then there is nothing to be read.
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = conn.Write([]byte{3})
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("%s was let in for Raft", name)
			}
			conn.Close()
		}
		if err == nil {
			t.Errorf("%s was answered by Raft", name)
		}
	}
	for name, c := range map[string]*tls.Config{"an agent": {Certificates: []tls.Certificate{agent}, RootCAs: a.pool}, "nobody": {RootCAs: a.pool}} {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(credentials.NewTLS(c)))
		check(t, err)
		peer := commandv1.NewPeerServiceClient(conn)
		_, propose := peer.Propose(t.Context(), &commandv1.ProposeRequest{Command: put("k", "v")})
		_, read := peer.ReadIndex(t.Context(), &commandv1.ReadIndexRequest{})
		_, state := peer.Status(t.Context(), &commandv1.StatusRequest{})
		_, samples := peer.Samples(t.Context(), &commandv1.SamplesRequest{})
		_, brokers := peer.Brokers(t.Context(), &commandv1.BrokersRequest{})
		_, admit := peer.Admit(t.Context(), &commandv1.AdmitRequest{})
		_, issue := peer.IssueAdministrator(t.Context(), &commandv1.IssueAdministratorRequest{Name: "kim"})
		_, remove := peer.RemoveServer(t.Context(), &commandv1.RemoveServerRequest{})
		for method, err := range map[string]error{"Propose": propose, "ReadIndex": read, "Status": state, "Samples": samples, "Brokers": brokers, "Admit": admit, "RemoveServer": remove, "IssueAdministrator": issue} {
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s called by %s: %v", method, name, err)
			}
		}
		if resp, err := peer.Join(t.Context(), &commandv1.JoinServerRequest{}); err != nil || resp.GetFederation() != "test.example" {
			t.Errorf("Join called by %s: %v, %v", name, resp, err)
		}
		check(t, conn.Close())
	}
	s.must(s.nodes[0], put("still", "there"))
}

func TestAServerThatAnswersAtAnothersAddressIsNotTakenForIt(t *testing.T) {
	s, _ := newTLSSite(t, 3, nil)
	gone := s.follower()
	gone.crash()
	imposter := s.add("server-9")
	imposter.address = gone.address
	imposter.start()
	servers, err := s.leader().Servers(t.Context())
	check(t, err)
	for _, server := range servers {
		if server.GetId() == gone.id && server.GetHealthy() {
			t.Errorf("server-9 passed for %s", gone.id)
		}
	}
	s.must(s.leader(), put("k", "v"))
	if index, _ := imposter.ledger.position(); index != 0 {
		t.Errorf("the imposter was given the log up to entry %d", index)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	a := newAuthority(t)
	s := &site{t: t, tune: func(c *Config) { c.Tuning = unhurried; a.dress(t, c) }}
	n := s.add("server-1")
	n.address = l.Addr().String()
	if err := n.tryStart(); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "taken") {
		t.Errorf("got %v", err)
	}
	check(t, l.Close())
	n.start() // the failed start has left nothing behind
	check(t, n.stop())
}

func TestADataFolderOfAnotherServerOrFederationIsRefused(t *testing.T) {
	s, _ := newTLSSite(t, 1, nil)
	owner := s.nodes[0]
	other := s.add("server-2")
	other.dir, other.address = owner.dir, freeAddress(t)
	if err := other.tryStart(); err == nil || !strings.Contains(err.Error(), "in use by the process with pid") {
		t.Errorf("a folder in use: %v", err)
	}
	check(t, owner.stop())
	err := other.tryStart()
	for _, word := range []string{"server-1", "server-2", "test.example", owner.dir, "empty one to join with"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("the refusal does not say %q: %v", word, err)
		}
	}
	tune := s.tune
	s.tune = func(c *Config) { tune(c); c.Federation = "other.example" }
	if err := owner.tryStart(); err == nil || !strings.Contains(err.Error(), "test.example") || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("a folder of another federation: %v", err)
	}
	s.tune = tune
	check(t, os.WriteFile(filepath.Join(owner.dir, "identity.json"), []byte("{"), 0o600))
	if err := owner.tryStart(); err == nil || !strings.Contains(err.Error(), "identity.json") {
		t.Errorf("an identity that does not read: %v", err)
	}
}

func TestTimeoutsThatADiskCannotKeepAreRefused(t *testing.T) {
	a := newAuthority(t)
	for name, tune := range map[string]func(*Tuning){
		"heartbeat_timeout": func(t *Tuning) { t.HeartbeatTimeout = 499 * time.Millisecond },
		"election_timeout":  func(t *Tuning) { t.HeartbeatTimeout, t.ElectionTimeout = 2*time.Second, time.Second },
		"lease_timeout":     func(t *Tuning) { t.LeaseTimeout = 2 * time.Second },
	} {
		s := &site{t: t, tune: func(c *Config) { c.Tuning = unhurried; tune(&c.Tuning); a.dress(t, c) }}
		n := s.add("server-1")
		n.address = freeAddress(t)
		if err := n.tryStart(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAnUnansweredJoinDoesNotHoldTheServerUp(t *testing.T) {
	s, _ := newTLSSite(t, 1, nil)
	conns := make([]net.Conn, 20)
	for i := range conns {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.nodes[0].address)
		check(t, err)
		conns[i] = c
	}
	s.must(s.nodes[0], put("k", "v"))
	stopped := make(chan error, 1)
	go func() { stopped <- s.nodes[0].stop() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case err := <-stopped:
		check(t, err)
	case <-ctx.Done():
		t.Error("callers that say nothing keep the server from stopping")
	}
	for _, c := range conns {
		c.Close()
	}
}
