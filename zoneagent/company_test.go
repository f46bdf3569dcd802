package zoneagent

import (
	"slices"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/members"
)

// pair is two agents of a zone that hear one another.
func pair(t *testing.T) (z *zone, one, two *Agent) {
	t.Helper()
	z = newZone(t)
	one = z.first()
	z.run(one.store.Run)
	z.run(one.servePeers)
	two = z.further(2, one)
	z.run(two.store.Run)
	z.run(two.servePeers)
	z.run(one.company.run)
	z.run(two.company.run)
	for _, a := range []*Agent{one, two} {
		z.eventually(a.config.Name+" hears both", func() bool { return alive(a) == 2 })
	}
	return z, one, two
}

func alive(a *Agent) (n int) {
	for _, m := range a.company.members.Members() {
		if m.Alive {
			n++
		}
	}
	return n
}

func TestAnAgentThatEntersHoldsTheZonesSecretsAndStore(t *testing.T) {
	_, one, two := pair(t)
	if !two.identity.Root().Equal(one.identity.Root()) || string(two.identity.GossipKey()) != string(one.identity.GossipKey()) {
		t.Error("it holds other secrets")
	}
	first, _ := one.store.Incarnation()
	second, _ := two.store.Incarnation()
	if first.GetId() != second.GetId() {
		t.Errorf("it has a store of its own: %v and %v", first, second)
	}
	if kept := must(two.config.keptEndpoints()); !slices.Equal(kept, one.store.Endpoints()) {
		t.Errorf("for its next start it keeps %v", kept)
	}
}

func TestTheOwnerOfTheLinkRecordsTheZonesAgentsAndWhatTheyOwn(t *testing.T) {
	z, one, two := pair(t)
	z.want(one, cluster("kvm"))
	z.run(two.runClusters)
	z.eventually("the second owns the cluster", func() bool { return z.ownerOf(one, "kvm") == "agent-2" })
	recorded := func() etcdstore.Change {
		t.Helper()
		if err := one.company.keepHouse(t.Context(), z.own); err != nil {
			t.Fatal(err)
		}
		return must(one.store.Get(t.Context(), etcdstore.Observed, "zone", zoneID))
	}
	before := recorded()
	agents := before.Message.(*apiv1.Zone).GetAgents()
	if len(agents) != 2 || !agents[0].GetUplink() || agents[1].GetUplink() || !agents[0].GetAlive() || !agents[1].GetAlive() {
		t.Fatalf("recorded %v", agents)
	}
	if !slices.Equal(agents[1].GetClusters(), []string{"kvm"}) || len(agents[0].GetClusters()) != 0 {
		t.Errorf("recorded as owners: %v", agents)
	}
	if again := recorded(); again.Revision != before.Revision {
		t.Error("what has not changed is written again")
	}
	two.company.close()
	z.eventually("the second's goodbye", func() bool { return alive(one) == 1 })
	agents = recorded().Message.(*apiv1.Zone).GetAgents()
	if len(agents) != 2 || agents[1].GetAlive() {
		t.Errorf("after it has gone: %v", agents)
	}
}

func TestAnEdgeFindsTheAgentThatOwnsTheLink(t *testing.T) {
	z, one, two := pair(t)
	if at, err := two.company.UplinkAddress(t.Context()); err != nil || at != "" {
		t.Errorf("while nobody owns it: %q, %v", at, err)
	}
	z.want(one)
	if at, err := two.company.UplinkAddress(t.Context()); err != nil || at != one.config.Agent.Address {
		t.Errorf("at another agent: %q, %v", at, err)
	}
	if at, err := one.company.UplinkAddress(t.Context()); err != nil || at != "" {
		t.Errorf("at its owner: %q, %v", at, err)
	}
}

func TestTheOthersAreAskedWhetherTheyReachAHost(t *testing.T) {
	z, one, two := pair(t)
	z.want(one, cluster("kvm"), host("kvm-1", "kvm", "sim://kvm-1"))
	if who, err := one.company.Reach(t.Context(), "id-kvm-1"); err != nil || !slices.Equal(who, []string{"agent-2"}) {
		t.Errorf("a host that the other reaches: %v, %v", who, err)
	}
	if who, err := one.company.Reach(t.Context(), "id-kvm-9"); err != nil || len(who) != 0 {
		t.Errorf("a host that nobody knows: %v, %v", who, err)
	}
	two.company.close()
	z.eventually("the second's goodbye", func() bool { return alive(one) == 1 })
	if who, err := one.company.Reach(t.Context(), "id-kvm-1"); err != nil || len(who) != 0 {
		t.Errorf("after the other has gone: %v, %v", who, err)
	}
}

func TestWhatOneAgentKnowsOfTheZonesAuthoritiesTheOthersLearn(t *testing.T) {
	_, one, two := pair(t)
	if err := one.identity.Replace(time.Hour, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := two.company.learnFrom(t.Context(), one.config.Agent.Address); err != nil {
		t.Fatal(err)
	}
	if len(two.identity.Roots()) != 2 {
		t.Errorf("it believes %d authorities", len(two.identity.Roots()))
	}
}

func TestAgentsTellOneAnotherWhereTheyAnswer(t *testing.T) {
	_, one, two := pair(t)
	i := slices.IndexFunc(one.company.members.Members(), func(m members.Member) bool { return m.Name == "agent-2" })
	m := one.company.members.Members()[i]
	if m.Agent != two.config.Agent.Address || m.EtcdPeer != two.config.Etcd.PeerAddress || m.EtcdClient != two.config.Etcd.ClientAddress {
		t.Errorf("heard %+v", m)
	}
}
