package federation_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/hub"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestABrokerInTheSameProcessIsTheSameBroker(t *testing.T) {
	s := newAuthorities(t)
	s.config = federation.DefaultConfig()
	s.config.StateDir, s.config.TrustPin = t.TempDir(), pki.Pin(s.root.Certificate)
	s.registry = prometheus.NewRegistry()
	pipe, zone := federation.Pipe(), listen(t, "")
	s.zoneAddr, s.hubAddr = zone.Addr().String(), pipe.Addr().String()
	s.broker = must(federation.NewBroker(s.config, federation.Options{Zone: zone, Hub: pipe, Registerer: s.registry}))
	s.fingerprint = s.broker.Fingerprint()
	s.run("broker", s.broker.Run)
	one := s.server("s1", func(c *hub.Config) { c.DialContext = pipe.DialContext })
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	a.send(linkv1.Type_PING, &linkv1.Ping{})
	receive(t, up.Stream)
}

func TestAPipeEndsInOrder(t *testing.T) {
	p := federation.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.DialContext(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody accepts: %v", err)
	}
	accepted := make(chan net.Conn, 1)
	go func() { accepted <- must(p.Accept()) }()
	here := must(p.DialContext(t.Context(), ""))
	there := <-accepted
	p.Close()
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := p.DialContext(t.Context(), ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := here.Write([]byte("x")); err != nil {
		t.Errorf("a connection of before: %v", err)
	}
	here.Close()
	there.Close()
}

func TestABrokerSaysWhatIsWrongWithItsConfiguration(t *testing.T) {
	s := newAuthorities(t)
	good := func() federation.Config {
		c := federation.DefaultConfig()
		c.StateDir, c.TrustPin, c.ZoneListen, c.HubListen = t.TempDir(), pki.Pin(s.root.Certificate), "127.0.0.1:0", "127.0.0.2:0"
		return c
	}
	if _, err := federation.NewBroker(good(), federation.Options{}); err != nil {
		t.Fatal(err)
	}
	for say, spoil := range map[string]func(*federation.Config){
		"state_dir":                func(c *federation.Config) { c.StateDir = "" },
		"trust_pin":                func(c *federation.Config) { c.TrustPin = "sha256:12" },
		"zone_listen":              func(c *federation.Config) { c.ZoneListen = "" },
		"hub_listen":               func(c *federation.Config) { c.HubListen = "" },
		"a leg in each network":    func(c *federation.Config) { c.HubListen = c.ZoneListen },
		"admin_listen":             func(c *federation.Config) { c.AdminListen = "127.0.0.1:0" },
		"limits.sessions_per_zone": func(c *federation.Config) { c.Limits.SessionsPerZone = 0 },
		"patience.offer":           func(c *federation.Config) { c.Patience.Offer = -1 },
	} {
		c := good()
		spoil(&c)
		if _, err := federation.NewBroker(c, federation.Options{}); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("want an error about %s, got %v", say, err)
		}
	}
}

func TestABrokerSaysWhichPortIsTaken(t *testing.T) {
	s := newAuthorities(t)
	taken := listen(t, "")
	defer taken.Close()
	c := federation.DefaultConfig()
	c.StateDir, c.TrustPin, c.ZoneListen, c.HubListen = t.TempDir(), pki.Pin(s.root.Certificate), "127.0.0.1:0", taken.Addr().String()
	b := must(federation.NewBroker(c, federation.Options{}))
	if err := b.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "hub_listen") || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestABrokersFolderOfAnotherFederationIsRefused(t *testing.T) {
	s := newSite(t)
	s.server("s1")
	s.stopBroker()
	s.config.TrustPin = pki.Pin(newAuthorities(t).root.Certificate)
	s.config.ZoneListen, s.config.HubListen = "127.0.0.1:0", "127.0.0.2:0"
	if _, err := federation.NewBroker(s.config, federation.Options{}); err == nil || !strings.Contains(err.Error(), "trust_pin") {
		t.Errorf("got %v", err)
	}
}
