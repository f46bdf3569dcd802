package zonehub_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/naru-project/naru/federation/dial"
	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// P9: what belongs to one network is worth nothing in another: neither a token, nor a certificate with its key.
func TestP9AnAgentThatComesThroughAnotherNetworksBrokerGetsNothing(t *testing.T) {
	s := newSite(t)
	elsewhere := pki.Fingerprint(must(pki.LoadOrCreate(t.TempDir(), "key")).Key().Public())
	if _, err := s.Admin().Brokers.CreateBroker(t.Context(), &apiv1.CreateBrokerRequest{Broker: &apiv1.Broker{
		Name: "inner", HubAddress: "127.0.0.1:9", Fingerprint: elsewhere,
	}}); err != nil {
		t.Fatal(err)
	}
	s.agent(s.Internet, "agent-1").start()
	s.eventually("the broker carries sessions", func() bool { return s.Zone("internet").GetFreshness() == apiv1.Freshness_LIVE })

	s.standBehind("inner", "business")
	a := s.agent(s.Business, "agent-1").start()
	s.eventually("it hears why", func() bool {
		_, err := a.last()
		var g *link.Goodbye
		return errors.As(err, &g) && g.Code == link.CodeWrongBroker && g.Remote && strings.Contains(g.Reason, "stands behind broker inner")
	})
	if a.came("cluster kvm") != 0 || s.connected() {
		t.Error("it got what it should hold, or counts as connected")
	}
	_, err := must(dial.New(dial.Config{Addresses: []string{s.zoneLeg}, Holder: a.holder})).Renew(t.Context(), must(a.holder.CSR()))
	if !problem.Is(problem.FromStatus(err), problem.Forbidden) {
		t.Errorf("renewing: %v", err)
	}

	r, err := s.Admin().Zones.CreateJoinToken(t.Context(), &apiv1.CreateJoinTokenRequest{Zone: "business"})
	if err != nil {
		t.Fatal(err)
	}
	token := must(pki.NewJoinToken(pki.Pin(s.root.Certificate)))
	token.ID = strings.Split(r.GetToken(), ":")[1]
	stranger := must(dial.New(dial.Config{Addresses: []string{s.zoneLeg}, Holder: must(pki.LoadOrCreate(t.TempDir(), "key"))}))
	_, err = stranger.Join(t.Context(), token, "agent-2", func() { t.Error("it is let wait") })
	if !problem.Is(problem.FromStatus(err), problem.Forbidden) {
		t.Errorf("joining: %v", err)
	}

	s.standBehind("edge", "business")
	s.eventually("it is let in where it belongs", s.connected)
}
