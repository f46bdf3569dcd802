package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// The site is one without networks of their own: this test speaks as the agent, from where the agent stands.
func TestAnAgentWhoseCertificateEndedWhileItWasDownCanOnlyRenewItAndThenWorks(t *testing.T) {
	needs(t)
	s := raise(t, "--mode", "loopback", "--servers", "1", "--without-libvirt")
	const agent = "agent-business"
	up := func() {
		t.Helper()
		s.dev(t, "start", agent)
		s.zone(t, "business", "is there", func(z *apiv1.Zone) bool {
			return z.GetState() == apiv1.Zone_ONLINE && z.GetFreshness() == apiv1.Freshness_LIVE
		})
	}
	down := func() {
		t.Helper()
		s.dev(t, "kill", agent)
		s.zone(t, "business", "is away", func(z *apiv1.Zone) bool { return z.GetFreshness() == apiv1.Freshness_STALE })
	}
	down()
	usual := s.servers(t, "link_lifetime: 10s")
	up() // the server is at the zone's broker again
	down()

	link, dialer := s.linkOf(t, agent)
	chain, err := dialer.Renew(t.Context(), must(link.CSR()))
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Set(chain); err != nil {
		t.Fatal(err)
	}
	short := link.Peer()
	if life := time.Until(short.NotAfter); life > 10*time.Second {
		t.Fatalf("it lives for %v", life)
	}
	usual()

	s.until(t, "the end of the certificate", func(ctx context.Context) (bool, error) {
		ctx, hangUp := context.WithCancel(ctx)
		defer hangUp()
		stream, err := dialer.Connect(ctx)
		if err == nil {
			_, err = stream.Recv() // ends at once, or when no HELLO has come
		}
		return status.Code(err) == codes.Unauthenticated && strings.Contains(err.Error(), "renew it first"), nil
	})
	if now := time.Now(); now.Before(short.NotAfter) {
		t.Errorf("refused at %v, before its end at %v", now, short.NotAfter)
	}

	up()
	renewed, _ := s.linkOf(t, agent)
	if is := renewed.Peer(); is.ID != short.ID || is.NotAfter.Before(short.NotAfter.Add(time.Hour)) {
		t.Errorf("the agent has a certificate of %v until %v; it had one of %v until %v", is.ID, is.NotAfter, short.ID, short.NotAfter)
	}
	s.naru(t, "internet", "vm", "create", "after", "--image", "tiny", "--flavor", "s1", "--zone", "business", "--wait")
	s.vm(t, "after", "runs", func(vm *apiv1.VM) bool { return vm.GetState() == apiv1.VM_RUNNING })
}

// linkOf opens an agent's link certificate as it is on disk, and a dialler that shows it.
func (s *standing) linkOf(t *testing.T, agent string) (*pki.Holder, *dial.Dialer) {
	t.Helper()
	var config struct{ Brokers []string }
	if err := yaml.Unmarshal(must(os.ReadFile(s.path("config", agent+".yaml"))), &config); err != nil {
		t.Fatal(err)
	}
	link := must(pki.LoadOrCreate(s.path("data", agent, "keys"), "link"))
	return link, must(dial.New(dial.Config{Addresses: config.Brokers, Holder: link}))
}

// servers starts the one server anew with more in its configuration; usual takes that back.
func (s *standing) servers(t *testing.T, more string) (usual func()) {
	t.Helper()
	const server = "controlplane-1"
	path := s.path("config", server+".yaml")
	before := must(os.ReadFile(path))
	anew := func(config []byte) {
		t.Helper()
		s.dev(t, "kill", server)
		if err := os.WriteFile(path, config, 0o600); err != nil {
			t.Fatal(err)
		}
		s.dev(t, "start", server)
	}
	anew([]byte(string(before) + "\n" + more + "\n"))
	return func() { t.Helper(); anew(before) }
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
