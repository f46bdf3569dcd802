package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

// startMember starts this agent's member where its data is there, or where there is no other etcd to go to.
func (s *Store) startMember() error {
	s.endpoints = uniqueSorted(slices.Clone(s.cfg.Endpoints)...)
	if s.cfg.Member == nil {
		return nil
	}
	if s.cfg.Member.forget {
		s.endpoints = nil
		return s.runMember(nil)
	}
	own := s.clientURL()
	others := uniqueSorted(append(s.folder.endpoints(), s.endpoints...)...)
	others = slices.DeleteFunc(others, func(e string) bool { return e == own })
	s.endpoints = others
	if !member.HasData(s.folder.member()) && len(others) > 0 {
		return nil
	}
	return s.runMember(nil)
}

// runMember starts the member: with what is in its folder, else as one of join, else alone.
func (s *Store) runMember(join []member.Peer) error {
	m, err := member.Start(s.cfg.member(s.folder.member(), join))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.member = m
	s.endpoints = uniqueSorted(append(s.endpoints, s.clientURL())...)
	return nil
}

func (c Config) member(dir string, join []member.Peer) member.Config {
	m := c.Member
	return member.Config{
		Name: c.Agent, Cluster: c.Zone, Dir: dir, Peer: m.Peer, Client: m.Client, TLS: c.TLS, Join: join,
		Tick: m.Tick, Election: m.Election, Quota: m.Quota, Compaction: m.Compaction, Forget: m.forget, NoSync: m.NoSync,
		Logger: c.Logger,
	}
}

func (s *Store) clientURL() string { return member.ClientURL(s.cfg.Member.Client, s.cfg.TLS) }

// running is this agent's member; nil while it is a client only.
func (s *Store) running() *member.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.member
}

// findEndpoints learns from etcd where its members are, and keeps it for the next start.
func (s *Store) findEndpoints(ctx context.Context) {
	if s.cfg.Member == nil {
		return
	}
	list, err := s.memberList(ctx)
	if err != nil {
		return
	}
	var found []string
	for _, m := range list {
		if !m.GetIsLearner() {
			found = append(found, m.GetClientURLs()...)
		}
	}
	found = uniqueSorted(found...)
	s.mu.Lock()
	same := slices.Equal(found, s.endpoints)
	if !same && len(found) > 0 {
		s.endpoints = found
		s.client.SetEndpoints(found...)
	}
	s.mu.Unlock()
	if len(found) > 0 && !slices.Equal(found, s.folder.endpoints()) {
		if err := s.folder.setEndpoints(found); err != nil {
			s.log.Error("the endpoints of the zone's etcd cannot be written", "error", err)
		}
	}
}

// Endpoints are the client URLs of the zone's etcd, for agents that enter.
func (s *Store) Endpoints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints)
}

func (s *Store) memberList(ctx context.Context) ([]*etcdserverpb.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	resp, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list etcd's members: %w", err)
	}
	learners := 0
	for _, m := range resp.Members {
		if m.GetIsLearner() {
			learners++
		}
	}
	s.metrics.members.WithLabelValues("learner").Set(float64(learners))
	s.metrics.members.WithLabelValues("voter").Set(float64(len(resp.Members) - learners))
	return resp.Members, nil
}

// roleLoop follows this agent's role: it joins when it is told to, and becomes a client when its member was removed.
func (s *Store) roleLoop(ctx context.Context) error {
	if s.cfg.Member == nil {
		return nil
	}
	changed := s.hints.subscribe(ctx.Done(), roles)
	retry := time.NewTicker(10 * s.cfg.Heartbeat)
	defer retry.Stop()
	for {
		var stopped <-chan struct{}
		if m := s.running(); m != nil {
			stopped = m.Stopped()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stopped:
			if ctx.Err() != nil || s.base.Err() != nil {
				return nil
			}
			if err := s.retire(ctx); err != nil {
				return err
			}
		case <-changed:
		case <-retry.C:
		}
		if err := s.takeRole(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("this agent's member of etcd could not be started", "error", err, "again_in", 10*s.cfg.Heartbeat)
		}
		s.findEndpoints(ctx)
	}
}

// retire puts the data of a member that was removed out of the way; the agent goes on as a client. A member that ended
// for another reason is an error.
func (s *Store) retire(ctx context.Context) error {
	m := s.running()
	list, err := s.memberList(ctx)
	if err != nil {
		return fmt.Errorf("this agent's member of etcd has ended: %w", err)
	}
	if slices.ContainsFunc(list, func(l *etcdserverpb.Member) bool { return l.GetID() == m.ID() }) {
		return errors.New("this agent's member of etcd has ended, and was not removed: its log tells why")
	}
	s.mu.Lock()
	s.member = nil
	s.mu.Unlock()
	m.Close()
	away := s.folder.member() + ".removed"
	if err := errors.Join(os.RemoveAll(away), os.Rename(s.folder.member(), away)); err != nil {
		return fmt.Errorf("this agent's member was removed from etcd, and its folder cannot be put aside: %w", err)
	}
	s.log.Warn("this agent's member was removed from etcd; the agent goes on as a client", "old_data", away)
	return nil
}

// takeRole starts this agent's member where its role says so and it does not run.
func (s *Store) takeRole(ctx context.Context) error {
	if s.running() != nil {
		return nil
	}
	c, err := s.Get(ctx, roles, "", s.cfg.Agent)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	role := c.Message.(*etcdserverpb.Member)
	list, err := s.memberList(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(m *etcdserverpb.Member) bool { return m.GetID() == role.GetID() })
	if i < 0 {
		return nil
	}
	if list[i].GetName() != "" && !member.HasData(s.folder.member()) {
		return s.giveUp(ctx, role)
	}
	var join []member.Peer
	for _, m := range list {
		name := m.GetName()
		if m.GetID() == role.GetID() {
			name = s.cfg.Agent
		}
		for _, u := range m.GetPeerURLs() {
			join = append(join, member.Peer{Name: name, URL: u})
		}
	}
	if err := s.runMember(join); err != nil {
		return err
	}
	s.log.Info("this agent runs a member of the zone's etcd", "learner", list[i].GetIsLearner())
	return nil
}

// giveUp takes this agent's member out of the cluster: it ran before and its data is lost, so it must not vote as if it
// remembered. The leader adds it anew.
func (s *Store) giveUp(ctx context.Context, role *etcdserverpb.Member) error {
	s.log.Warn("the data of this agent's member is lost; it is removed from etcd to be added anew")
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	defer cancel()
	if _, err := s.client.MemberRemove(ctx, role.GetID()); err != nil {
		return fmt.Errorf("remove lost member: %w", err)
	}
	_, err := s.client.Delete(ctx, s.keys.of(roles, s.cfg.Agent))
	return err
}

// roleOf reads who was told to be a member.
func (s *Store) roleOf(ctx context.Context) (map[string]*etcdserverpb.Member, error) {
	resp, err := s.get(ctx, s.keys.under(roles), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	out := map[string]*etcdserverpb.Member{}
	for _, kv := range resp.Kvs {
		c, ok, err := s.keys.change(kv)
		if err != nil {
			return nil, err
		}
		if ok {
			out[c.ID] = c.Message.(*etcdserverpb.Member)
		}
	}
	return out, nil
}
