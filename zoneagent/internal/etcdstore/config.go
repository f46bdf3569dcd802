package etcdstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/zoneagent/internal/etcdstore/member"
)

// Config says where the zone's store is and who uses it.
type Config struct {
	// Zone is the zone's id, Agent this agent's name.
	Zone, Agent string
	// Dir is this agent's folder: anchor, identity and, below etcd/, the member's data.
	Dir string
	// Endpoints are client URLs of an etcd that is there already: the zone's other agents', or an external cluster's.
	// Empty, with Member set and the folder empty, begins a new store.
	Endpoints []string
	// Member makes this agent able to run a member of the embedded etcd. Nil: the etcd is an external one.
	Member *MemberConfig
	// TLS is needed unless everything is on loopback addresses.
	TLS *member.TLS

	// MaxOps and MaxBytes bound one transaction. By default what the embedded etcd takes, and for an external one
	// etcd's own defaults (128 operations; 1 MiB of 1.5).
	MaxOps, MaxBytes int
	// Quota is an external etcd's, where it does not tell; the embedded one's stands in Member.
	Quota int64
	// RequestTimeout bounds one request to etcd: 3 s by default.
	RequestTimeout time.Duration
	// LeaseTTL is how long an ownership outlives its last keep-alive, in whole seconds (6 s by default); LeaseMargin is
	// how much earlier the owner stops (1 s by default): it covers clocks that run at different speeds.
	LeaseTTL, LeaseMargin time.Duration
	// Heartbeat is how often the store is looked at when nothing else asks it (2 s by default); AnchorEvery how often
	// the anchor is written at most (5 s).
	Heartbeat, AnchorEvery time.Duration
	// JournalKeep bounds what is kept of all streams together after acknowledgement and before a backup of the control
	// plane has it, to be sent again: 262144 entries by default, of which each stream has an equal part.
	JournalKeep uint64
	// MemberGrace is how long a member may be away before another agent takes its place: 5 min by default.
	MemberGrace time.Duration

	// Elapsed is time since some fixed moment; by default it also counts while the machine is suspended.
	Elapsed func() time.Duration
	Logger  *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// MemberConfig is this agent's member of the embedded etcd.
type MemberConfig struct {
	// Peer and Client are IP:port in the zone's network.
	Peer, Client string
	// Tick and Election are Raft's: 100 ms and 1 s by default.
	Tick, Election time.Duration
	// Quota bounds the database in bytes (2 GiB by default); Compaction is how much history is kept (an hour).
	Quota      int64
	Compaction time.Duration
	// NoSync leaves out disk syncs: for tests only.
	NoSync bool

	forget bool // see ForgetMembers
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	or(&c.RequestTimeout, 3*time.Second)
	or(&c.LeaseTTL, 6*time.Second)
	or(&c.LeaseMargin, time.Second)
	or(&c.Heartbeat, 2*time.Second)
	or(&c.AnchorEvery, 5*time.Second)
	or(&c.MemberGrace, 5*time.Minute)
	if c.JournalKeep == 0 {
		c.JournalKeep = 1 << 18
	}
	ops, bytes := 128, 1<<20
	if c.Member != nil {
		ops, bytes = member.MaxOps, member.MaxBytes/2
	}
	if c.MaxOps == 0 {
		c.MaxOps = ops
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = bytes
	}
	if c.Elapsed == nil {
		c.Elapsed = sinceBoot
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	if err := checkPart("zone id", c.Zone); err != nil {
		return err
	}
	if err := checkPart("agent name", c.Agent); err != nil {
		return err
	}
	switch {
	case c.Dir == "":
		return errors.New("the agent's folder is not set")
	case c.Member == nil && len(c.Endpoints) == 0:
		return errors.New("external etcd: no endpoints are set")
	case c.MaxOps < 16:
		return fmt.Errorf("etcd transactions of %d operations are too small: at least 16 are needed", c.MaxOps)
	case c.LeaseTTL%time.Second != 0:
		return fmt.Errorf("lease of %s: etcd counts whole seconds", c.LeaseTTL)
	case c.LeaseMargin >= c.LeaseTTL:
		return fmt.Errorf("lease margin %s leaves nothing of a lease of %s", c.LeaseMargin, c.LeaseTTL)
	}
	return nil
}
