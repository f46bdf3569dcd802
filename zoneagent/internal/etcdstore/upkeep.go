package etcdstore

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// pressedAt is the part of the quota, in percent, from which new local work is refused.
	pressedAt = 60
	// standardQuota is etcd's own, where it does not tell.
	standardQuota = 2 << 30
	// defragEvery is how often this agent's member may be defragmented: it does not answer meanwhile.
	defragEvery = 10 * time.Minute
)

// pressure is how full etcd's members are.
type pressure struct {
	size, quota  int64
	defragmented time.Duration
}

// Pressed tells whether the store is so full that no new local work may begin: the rest of the quota is kept for the
// results of what was begun, and for recovery.
func (s *Store) Pressed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pressure.quota > 0 && s.pressure.size*100 >= s.pressure.quota*pressedAt
}

// Size is that of the fullest member's database and its quota, in bytes.
func (s *Store) Size() (size, quota int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pressure.size, s.pressure.quota
}

func (s *Store) upkeepLoop(ctx context.Context) {
	waits := s.tellBehind(ctx, false)
	s.measure(ctx)
	every(ctx, 5*s.cfg.Heartbeat, func() {
		waits = s.tellBehind(ctx, waits)
		s.measure(ctx)
		s.findEndpoints(ctx)
	})
}

// tellBehind says, when it is news, that the zone waits for the control plane before it does anything to VMs.
func (s *Store) tellBehind(ctx context.Context, was bool) (is bool) {
	c, err := s.Cursor(ctx)
	if err != nil {
		return was
	}
	switch is = c.GetBehind(); {
	case is && !was:
		s.metrics.behind.Set(1)
		s.log.Warn("the store began anew and may know less than it knew: until the control plane has told all that is wanted, VMs are watched and nothing is done to them")
	case was && !is:
		s.metrics.behind.Set(0)
		s.log.Info("the control plane has told all that is wanted; work on VMs goes on")
	}
	return is
}

// measure asks every member how full it is.
func (s *Store) measure(ctx context.Context) {
	var size, quota int64
	for _, e := range s.client.Endpoints() {
		st, err := s.status(ctx, e)
		if err != nil {
			continue
		}
		size = max(size, st.DbSize)
		if quota == 0 || (st.DbSizeQuota > 0 && st.DbSizeQuota < quota) {
			quota = st.DbSizeQuota
		}
		if s.cfg.Member != nil && e == s.clientURL() {
			s.defragment(ctx, st)
		}
	}
	if size == 0 {
		return
	}
	if s.cfg.Quota > 0 {
		quota = s.cfg.Quota
	}
	if quota <= 0 {
		quota = standardQuota
	}
	before := s.Pressed()
	s.mu.Lock()
	s.pressure.size, s.pressure.quota = size, quota
	s.mu.Unlock()
	s.metrics.size.Set(float64(size))
	s.metrics.quota.Set(float64(quota))
	if now := s.Pressed(); now != before {
		s.log.Warn("the fill of the zone's etcd has passed the mark for new work", "pressed", now, "size", size, "quota", quota)
	}
}

// status asks one member how it is; one that is away is not waited for.
func (s *Store) status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout/3)
	defer cancel()
	at, hangUp, err := s.at(endpoint)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	return at.Status(ctx, endpoint)
}

// at dials one member. The client does that, too, for what asks one member only, but reads its endpoints then without the
// lock under which they are set; here both are done under the store's.
func (s *Store) at(endpoint string) (_ clientv3.Maintenance, hangUp func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn, err := s.client.Dial(endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("dial etcd's member at %s: %w", endpoint, err)
	}
	return clientv3.NewMaintenanceFromMaintenanceClient(clientv3.RetryMaintenanceClient(s.client, conn), s.client), func() { _ = conn.Close() }, nil
}

// defragment gives the free pages of this agent's member back, when it is half full and mostly free, and takes back
// the alarm that etcd raises at its quota.
func (s *Store) defragment(ctx context.Context, st *clientv3.StatusResponse) {
	s.mu.Lock()
	due := s.cfg.Elapsed()-s.pressure.defragmented >= defragEvery
	s.mu.Unlock()
	if st.DbSizeQuota == 0 || st.DbSize*2 < st.DbSizeQuota || st.DbSizeInUse*2 > st.DbSize || !due {
		return
	}
	s.mu.Lock()
	s.pressure.defragmented = s.cfg.Elapsed()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	at, hangUp, err := s.at(s.clientURL())
	if err == nil {
		defer hangUp()
		_, err = at.Defragment(ctx, s.clientURL())
	}
	if err != nil {
		s.log.Warn("this agent's member of etcd could not be defragmented", "error", err)
		return
	}
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		s.log.Warn("etcd's alarm could not be taken back", "error", err)
	}
}
