package zoneagent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/version"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/members"
	"github.com/naru-project/naru/zoneagent/internal/peer"
	"github.com/naru-project/naru/zoneagent/internal/uplink"
)

// company is the zone's agents, this one among them: who they are by gossip, what they own by election, and what they are
// asked.
type company struct {
	agent   *Agent
	members *members.Members
	peers   *peer.Peers
}

func newCompany(a *Agent) (*company, error) {
	c := &company{agent: a, peers: peer.NewPeers(a.identity)}
	var err error
	c.members, err = members.New(members.Config{
		Name: a.config.Name, Address: a.config.Gossip.Address, Key: a.identity.GossipKey(), Join: a.config.gossipPeers(),
		Self: members.Member{
			Name: a.config.Name, Agent: a.config.Agent.Address, EtcdPeer: a.config.Etcd.PeerAddress,
			EtcdClient: a.config.Etcd.ClientAddress, Version: version.Version,
		},
		Log: a.log.With("part", "members"), Registerer: a.registry,
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *company) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.members.Run(ctx) })
	g.Go(func() error { return c.learn(ctx) })
	return g.Wait()
}

// learnEvery is how often an agent asks another one for the zone's authorities.
const learnEvery = time.Minute

// learn asks one of the other agents after the other, so that what one knows all know.
func (c *company) learn(ctx context.Context) error {
	t := time.NewTicker(learnEvery)
	defer t.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		others := slices.DeleteFunc(c.members.Members(), func(m members.Member) bool { return m.Name == c.agent.config.Name || !m.Alive })
		if len(others) == 0 {
			continue
		}
		other := others[turn%len(others)]
		if err := c.learnFrom(ctx, other.Agent); err != nil && ctx.Err() == nil {
			c.agent.log.Warn("another agent did not tell of the zone's authorities", "agent", other.Name, "error", err)
		}
	}
}

func (c *company) learnFrom(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.peers.Learn(ctx, address)
}

func (c *company) close() {
	c.peers.Close()
	if err := c.members.Close(); err != nil {
		c.agent.log.Debug("end the gossip", "error", err)
	}
}

// keepHouse is what the owner of the zone's link does besides: it countersigns the control plane's audit log, records the zone's
// agents, moves etcd's membership along, and looks after what was done while the zone was cut off.
func (a *Agent) keepHouse(ctx context.Context, own *etcdstore.Ownership) error {
	err := errors.Join(a.witness.Look(ctx, own), a.company.keepHouse(ctx, own))
	if a.desk != nil {
		err = errors.Join(err, a.desk.Look(ctx, own, a.uplink.Status().State == uplink.Connected))
	}
	return err
}

// keepHouse records the zone's agents, and moves etcd's membership one step towards what they allow.
func (c *company) keepHouse(ctx context.Context, own *etcdstore.Ownership) error {
	all := c.members.Members()
	owners, err := c.agent.store.Owners(ctx)
	if err != nil {
		return err
	}
	zone := &apiv1.Zone{Id: c.agent.identity.ZoneID(), AuditObjection: c.agent.witness.Objection()}
	if c.agent.desk != nil {
		zone.SealingKey = c.agent.desk.Public
	}
	var agents []etcdstore.Agent
	for _, m := range all {
		recorded := &apiv1.Agent{Name: m.Name, Version: m.Version, Alive: m.Alive, Uplink: owners[etcdstore.UplinkName] == m.Name}
		for name, owner := range owners {
			if owner == m.Name && name != etcdstore.UplinkName {
				recorded.Clusters = append(recorded.Clusters, c.clusterName(ctx, name))
			}
		}
		slices.Sort(recorded.Clusters)
		zone.Agents = append(zone.Agents, recorded)
		agents = append(agents, etcdstore.Agent{Name: m.Name, Peer: m.EtcdPeer, Client: m.EtcdClient, Alive: m.Alive})
	}
	if err := c.record(ctx, own, zone); err != nil {
		return err
	}
	if len(c.agent.config.Etcd.Endpoints) > 0 {
		return nil
	}
	did, err := c.agent.store.EnsureMembers(ctx, agents)
	if did != "" {
		c.agent.log.Info("etcd's membership", "step", did)
	}
	return err
}

// record writes what is observed of the zone, where it has changed.
func (c *company) record(ctx context.Context, own *etcdstore.Ownership, zone *apiv1.Zone) error {
	have, err := c.agent.store.Get(ctx, etcdstore.Observed, "zone", zone.GetId())
	if err == nil && proto.Equal(have.Message, zone) {
		return nil
	}
	if err != nil && !errors.Is(err, etcdstore.ErrNotFound) {
		return err
	}
	tx := c.agent.store.Begin(own)
	tx.PutObserved(zone)
	_, err = tx.Commit(ctx)
	return err
}

// clusterName is the name of the cluster that an election is for, or its id where the name is not known.
func (c *company) clusterName(ctx context.Context, election string) string {
	id := strings.TrimPrefix(election, etcdstore.ClusterName(""))
	found, err := c.agent.store.Get(ctx, etcdstore.Desired, "cluster", id)
	if err != nil {
		return id
	}
	return found.Message.(*apiv1.Cluster).GetName()
}

// UplinkAddress is where the agent that owns the link answers; empty where it is this one or nobody.
func (c *company) UplinkAddress(ctx context.Context) (string, error) {
	owners, err := c.agent.store.Owners(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range c.members.Members() {
		if m.Name == owners[etcdstore.UplinkName] && m.Name != c.agent.config.Name {
			return m.Agent, nil
		}
	}
	return "", nil
}

// Call has the agent at address carry a call over the link it holds.
func (c *company) Call(ctx context.Context, address string, r *zonev1.CallRequest, send func(*zonev1.CallResponse) error) error {
	return c.peers.Call(ctx, address, r, send)
}

// Reach returns the names of the zone's other agents that reach a host now.
func (c *company) Reach(ctx context.Context, hostID string) ([]string, error) {
	var names []string
	for _, m := range c.members.Members() {
		if m.Name == c.agent.config.Name || !m.Alive {
			continue
		}
		if reachable, _, err := c.peers.Reach(ctx, m.Agent, hostID); err == nil && reachable {
			names = append(names, m.Name)
		}
	}
	return names, nil
}
