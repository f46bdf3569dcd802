package zoneagent

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/zoneagent/internal/uplink"
)

// readiness is what /readyz says, and with which code; 0 while nothing answers.
func readiness(c *Config) (code int, text string) {
	r, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + c.MetricsAddress + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

func TestARunningAgentTellsWhatItHolds(t *testing.T) {
	z := newZone(t)
	a := z.first()
	if _, err := ReadStatus(t.Context(), a.config); err == nil || !strings.Contains(err.Error(), "naru-zoneagent run") {
		t.Errorf("before it runs: %v", err)
	}
	z.want(a, cluster("kvm"))
	stop := z.run(a.Run)
	var s *Status
	z.eventually("it owns its cluster", func() (is bool) {
		var err error
		s, err = ReadStatus(t.Context(), a.config)
		return err == nil && len(s.Clusters) == 1
	})
	if s.Agent != "agent-1" || s.Zone != zoneID || s.Federation != "naru.test" || s.Clusters[0] != "kvm" || s.LinkOwner != "agent-1" {
		t.Errorf("it tells %+v", s)
	}
	if len(s.Agents) != 1 || !s.Agents[0].Alive {
		t.Errorf("of agents it tells %+v", s.Agents)
	}
	incarnation, _ := a.store.Incarnation()
	if s.Store.Incarnation != incarnation.GetId() || s.Store.Begun.IsZero() || s.Store.Members != 1 || s.Store.Voters != 1 || !s.Store.Here || s.Store.Behind || s.Store.Problem != "" {
		t.Errorf("of the store it tells %+v", s.Store)
	}
	ends := map[string]bool{}
	for _, c := range s.Certificates {
		ends[c.For] = c.Ends.After(time.Now())
	}
	if !ends["link"] || !ends["zone"] || !ends["edge"] {
		t.Errorf("of certificates it tells %+v", s.Certificates)
	}
	if code, text := readiness(a.config); code != http.StatusOK {
		t.Errorf("/readyz is %d %s", code, text)
	}
	stop()
	if _, err := ReadStatus(t.Context(), a.config); err == nil {
		t.Error("it answers after it has ended")
	}
	if code, _ := readiness(a.config); code != 0 {
		t.Error("/readyz answers after it has ended")
	}
}

func TestAnAgentWithoutASessionSaysSinceWhenAndWhy(t *testing.T) {
	z := newZone(t)
	a := z.first()
	z.run(a.Run)
	var s *Status
	z.eventually("it has failed to connect", func() bool {
		var err error
		s, err = ReadStatus(t.Context(), a.config)
		return err == nil && s.Link.State == uplink.Connecting && s.Link.Why != ""
	})
	if s.Link.Since.IsZero() || s.Link.Since.After(time.Now()) || s.LinkOwner != "agent-1" {
		t.Errorf("it tells %+v, owned by %q", s.Link, s.LinkOwner)
	}
}

func TestWhileItStartsAnAgentSaysWhatItWaitsFor(t *testing.T) {
	z := newZone(t)
	one := z.first()
	stop := z.run(one.servePeers)
	two := z.further(2, one)
	two.close()
	stop()
	one.close()
	// Started again, the second one finds no etcd.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := New(ctx, two.config, silent)
		ended <- err
	}()
	z.eventually("it waits for etcd", func() bool {
		code, text := readiness(two.config)
		return code == http.StatusServiceUnavailable && strings.Contains(text, "waiting for the zone's etcd")
	})
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("it ended with %v", err)
	}
	if code, _ := readiness(two.config); code != 0 {
		t.Error("/readyz answers after it has given up")
	}
}
