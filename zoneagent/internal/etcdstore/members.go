package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

// Agent is one of the zone's agents, as the leader sees it.
type Agent struct {
	Name string
	// Peer and Client are IP:port where its member listens, or would.
	Peer, Client string
	// Alive is a hint: nobody is removed on its word alone.
	Alive bool
}

// EnsureMembers moves etcd's membership one step towards what the zone's agents allow: one member for one or two
// agents, three from three on. A member is added as a learner, promoted when it has caught up, and one that has been
// away longer than the grace time is replaced when another agent is there. One agent, the uplink's owner, calls it
// every few seconds with all agents it knows of. It tells in words what it did; "" when there was nothing to do.
func (s *Store) EnsureMembers(ctx context.Context, agents []Agent) (string, error) {
	if s.cfg.Member == nil {
		return "", nil
	}
	list, err := s.memberList(ctx)
	if err != nil {
		return "", err
	}
	told, err := s.roleOf(ctx)
	if err != nil {
		return "", err
	}
	p := s.plan(agents, list, told)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	switch {
	case p.learner != nil:
		return s.tendLearner(ctx, p, told)
	case p.dead != nil && p.candidate != nil:
		if s.answers(ctx, p.dead) {
			return "", nil
		}
		return s.remove(ctx, p.dead, p.deadName)
	case p.voters < p.want && p.candidate != nil:
		return s.addLearner(ctx, *p.candidate)
	}
	return "", s.forgetRoles(ctx, list, told)
}

// Membership is how many members the zone's etcd has, and whether this agent runs one of them.
type Membership struct {
	Members int  `json:"members"`
	Voters  int  `json:"voters"`
	Here    bool `json:"here"`
}

// Membership asks etcd for its members.
func (s *Store) Membership(ctx context.Context) (Membership, error) {
	list, err := s.memberList(ctx)
	m := Membership{Members: len(list), Here: s.running() != nil}
	for _, one := range list {
		if !one.GetIsLearner() {
			m.Voters++
		}
	}
	return m, err
}

// plan is what EnsureMembers sees.
type plan struct {
	want, voters int
	// learner is the one member that does not vote yet; its agent's name may be unknown.
	learner     *etcdserverpb.Member
	learnerName string
	learnerGone bool
	// dead is a voter that has been away longer than the grace time.
	dead     *etcdserverpb.Member
	deadName string
	// candidate is an agent that is there and no member.
	candidate *Agent
}

func (s *Store) plan(agents []Agent, list []*etcdserverpb.Member, told map[string]*etcdserverpb.Member) plan {
	p := plan{want: 1}
	agents = slices.Clone(agents)
	slices.SortFunc(agents, func(a, b Agent) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	alive := 0
	for _, a := range agents {
		if a.Alive {
			alive++
		}
	}
	if alive >= 3 || len(list) >= 3 {
		p.want = 3
	}
	for _, m := range list {
		i := slices.IndexFunc(agents, func(a Agent) bool { return s.isAt(m, a) })
		name := nameOfMember(m, told)
		if i >= 0 {
			name = agents[i].Name
		}
		gone := s.goneFor(m.GetID(), i >= 0 && agents[i].Alive)
		if m.GetIsLearner() {
			p.learner, p.learnerName, p.learnerGone = m, name, gone
			continue
		}
		p.voters++
		if gone && p.dead == nil {
			p.dead, p.deadName = m, name
		}
	}
	for i, a := range agents {
		if a.Alive && a.Peer != "" && !slices.ContainsFunc(list, func(m *etcdserverpb.Member) bool { return s.isAt(m, a) }) {
			p.candidate = &agents[i]
			break
		}
	}
	return p
}

// nameOfMember is the agent's that runs a member, or was told to.
func nameOfMember(m *etcdserverpb.Member, told map[string]*etcdserverpb.Member) string {
	for name, role := range told {
		if role.GetID() == m.GetID() {
			return name
		}
	}
	return m.GetName()
}

func (s *Store) isAt(m *etcdserverpb.Member, a Agent) bool {
	return m.GetName() == a.Name || slices.Contains(m.GetPeerURLs(), member.PeerURL(a.Peer, s.cfg.TLS))
}

// goneFor tells whether a member's agent has been away longer than the grace time, by this leader's own watch.
func (s *Store) goneFor(id uint64, alive bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if alive {
		delete(s.gone, id)
		return false
	}
	since, ok := s.gone[id]
	if !ok {
		since = s.cfg.Elapsed()
		s.gone[id] = since
	}
	return s.cfg.Elapsed()-since >= s.cfg.MemberGrace
}

// answers asks a member itself whether it lives.
func (s *Store) answers(ctx context.Context, m *etcdserverpb.Member) bool {
	for _, u := range m.GetClientURLs() {
		if _, err := s.status(ctx, u); err == nil {
			return true
		}
	}
	return false
}

func (s *Store) tendLearner(ctx context.Context, p plan, told map[string]*etcdserverpb.Member) (string, error) {
	name := p.learnerName
	switch {
	case p.learnerGone:
		return s.remove(ctx, p.learner, name)
	case name == "":
		return "", nil
	case told[name].GetID() != p.learner.GetID():
		return "told " + name + " to run a member", s.tell(ctx, name, p.learner)
	}
	if p.learner.GetName() == "" {
		return "", nil
	}
	_, err := s.client.MemberPromote(ctx, p.learner.GetID())
	switch {
	case notYet(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("promote member of %s: %w", name, err)
	}
	p.learner.IsLearner = false
	s.log.Info("a member of the zone's etcd has caught up and votes", "agent", name)
	return "promoted " + name, s.tell(ctx, name, p.learner)
}

func (s *Store) addLearner(ctx context.Context, a Agent) (string, error) {
	resp, err := s.client.MemberAddAsLearner(ctx, []string{member.PeerURL(a.Peer, s.cfg.TLS)})
	if notYet(err) || errors.Is(err, rpctypes.ErrMemberNotFound) {
		// The latter: etcd makes a member's id from address and second, and one of this id was removed just now.
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("add %s as a learner: %w", a.Name, err)
	}
	s.log.Info("an agent is to run a member of the zone's etcd", "agent", a.Name)
	return "added " + a.Name, s.tell(ctx, a.Name, resp.Member)
}

func (s *Store) remove(ctx context.Context, m *etcdserverpb.Member, name string) (string, error) {
	_, err := s.client.MemberRemove(ctx, m.GetID())
	if notYet(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("remove member of %s: %w", name, err)
	}
	s.log.Warn("a member of the zone's etcd that was away is removed", "agent", name, "grace", s.cfg.MemberGrace)
	if name == "" {
		return "removed a member that never came", nil
	}
	_, err = s.client.Delete(ctx, s.keys.of(roles, name))
	return "removed " + name, err
}

// notYet: etcd takes a change of its membership only when a learner has caught up, and when all members have been
// connected for some seconds.
func notYet(err error) bool {
	return errors.Is(err, rpctypes.ErrMemberLearnerNotReady) || errors.Is(err, rpctypes.ErrUnhealthy)
}

// tell writes an agent's role.
func (s *Store) tell(ctx context.Context, agent string, m *etcdserverpb.Member) error {
	value, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := s.client.Put(ctx, s.keys.of(roles, agent), string(value)); err != nil {
		return fmt.Errorf("write role of %s: %w", agent, err)
	}
	return nil
}

// forgetRoles deletes roles of members that are no more.
func (s *Store) forgetRoles(ctx context.Context, list []*etcdserverpb.Member, told map[string]*etcdserverpb.Member) error {
	for name, role := range told {
		if slices.ContainsFunc(list, func(m *etcdserverpb.Member) bool { return m.GetID() == role.GetID() }) {
			continue
		}
		if _, err := s.client.Delete(ctx, s.keys.of(roles, name)); err != nil {
			return fmt.Errorf("delete role of %s: %w", name, err)
		}
	}
	return nil
}
