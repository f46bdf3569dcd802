package etcdstore

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestTheFirstAgentBeginsAStoreAndFindsItAgain(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	a := z.open(c)
	own := a.own(ClusterName("c1"))
	tx := a.Begin(own)
	tx.PutObserved(vm("vm-1"))
	a.commit(tx)
	before, _ := a.Incarnation()
	a.close()

	b := z.open(c)
	got, err := b.Get(t.Context(), Observed, "vm", "vm-1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Message.(*apiv1.VM).GetState() != apiv1.VM_RUNNING {
		t.Errorf("came back as %v", got.Message)
	}
	if after, _ := b.Incarnation(); after.GetId() != before.GetId() {
		t.Errorf("a restart minted incarnation %s (%s)", after.GetId(), after.GetReason())
	}
}

func TestAFolderOfAnotherZoneOrAgentIsRefused(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	z.open(c).close()

	other := c
	other.Zone = "another-zone"
	if _, err := Open(t.Context(), other); err == nil || !strings.Contains(err.Error(), "belongs to agent agent-1 of zone "+zoneID) {
		t.Errorf("another zone: %v", err)
	}
	other = c
	other.Agent = "agent-2"
	if _, err := Open(t.Context(), other); err == nil || !strings.Contains(err.Error(), "this is agent agent-2") {
		t.Errorf("another agent: %v", err)
	}
	z.open(c)
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "in use by the process with pid") {
		t.Errorf("a folder in use: %v", err)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	z := newZone(t)
	c := z.config(1)
	l, err := net.Listen("tcp", c.Member.Client)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.Member.Client+" is taken") {
		t.Errorf("error is %v", err)
	}
}

func TestAnEtcdThatIsNotThereIsWaitedForAndThenNamed(t *testing.T) {
	z := newZone(t)
	c := z.config(2, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, c)
	if err == nil || !strings.Contains(err.Error(), c.Endpoints[0]) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error is %v", err)
	}

	opened := make(chan error, 1)
	go func() {
		s, err := Open(t.Context(), c)
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	z.open(z.config(1))
	if err := <-opened; err != nil {
		t.Errorf("it came later, and: %v", err)
	}
}

func TestWithoutCertificatesNothingListensBeyondLoopback(t *testing.T) {
	c := newZone(t).config(1)
	c.Member.Peer = "192.0.2.1:2380"
	if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "certificates are needed") {
		t.Errorf("error is %v", err)
	}
}

func TestWrongConfigurationIsNamed(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"zone id":       func(c *Config) { c.Zone = "a/b" },
		"agent name":    func(c *Config) { c.Agent = "" },
		"folder":        func(c *Config) { c.Dir = "" },
		"no endpoints":  func(c *Config) { c.Member = nil },
		"whole seconds": func(c *Config) { c.LeaseTTL = 1500 * time.Millisecond },
		"lease margin":  func(c *Config) { c.LeaseMargin = c.LeaseTTL },
		"too small":     func(c *Config) { c.MaxOps = 3 },
	} {
		c := newZone(t).config(1)
		change(&c)
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v", want, err)
		}
	}
}
