package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
	"github.com/prometheus/client_golang/prometheus"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// Config is what a Replica is made from.
type Config struct {
	// ServerID and Federation say who this is; the data folder belongs to them from its first use on.
	ServerID, Federation string
	// Dir is the folder of the log and the snapshots. It is made when it is missing.
	Dir string
	// Address is HOST:PORT where the other servers reach this one.
	Address string
	// Listen is HOST:PORT to listen on; empty means Address.
	Listen string

	Machine Machine
	Tuning  Tuning

	// ServerTLS and ClientTLS are the two ends of what servers say to one another. Both verify the peer's chain; ServerTLS
	// has to let callers in who have no certificate, since a new server has none before it has joined. ALPN is set here.
	ServerTLS, ClientTLS *tls.Config
	// PeerOf returns the id of the server whose certificate the connection has shown; an error for anybody else.
	PeerOf func(tls.ConnectionState) (serverID string, err error)

	Join  JoinHandler
	Local LocalView

	Logger  *slog.Logger
	Metrics prometheus.Registerer

	snapshotKept func()    // tests end the process there
	files        types.VFS // tests put in one that fails
}

// JoinHandler decides who becomes a server, and who may act with a server's authority.
type JoinHandler interface {
	// Join answers a new server's first words. The caller has shown no certificate.
	Join(context.Context, *commandv1.JoinServerRequest) (*commandv1.JoinServerResponse, error)
	// Admit is asked, on the leader, before the calling server becomes a voter. The server's id is that of its certificate.
	Admit(context.Context, *apiv1.Server) error
	// IssueAdministrator gives an administrator a certificate by the word of whoever holds the calling server's key.
	IssueAdministrator(ctx context.Context, serverID string, r *commandv1.IssueAdministratorRequest) (*commandv1.IssueAdministratorResponse, error)
}

// LocalView is what this server tells its peers about itself.
type LocalView interface {
	// Server returns this server; role, voter, healthy, applied_index are filled in by the replica.
	Server(context.Context) (*apiv1.Server, error)
	// Samples returns the newest samples of the zones whose session this server holds.
	Samples(context.Context) (*commandv1.SamplesResponse, error)
	// Brokers returns this server's side of every broker.
	Brokers(context.Context) ([]*apiv1.Broker, error)
}

// Tuning is what an operator may change. A zero field means its default.
type Tuning struct {
	// How long a follower hears nothing from the leader before it stands for election; then up to twice that. Default 1s, at
	// least 500ms: a slow disk may take a quarter of a second for one sync.
	HeartbeatTimeout time.Duration `yaml:"heartbeat_timeout"`
	// How long a candidate waits for votes before it stands again. Default 1s, at least 500ms and heartbeat_timeout.
	ElectionTimeout time.Duration `yaml:"election_timeout"`
	// How long a leader goes on without hearing from a majority. Default 500ms, at most heartbeat_timeout.
	LeaseTimeout time.Duration `yaml:"lease_timeout"`
	// How long an idle leader waits before it repeats to the followers what is committed. Default 50ms.
	CommitTimeout time.Duration `yaml:"commit_timeout"`
	// How long the disk may keep an append waiting before a leader lets another one lead. Default 2s.
	StallTimeout time.Duration `yaml:"stall_timeout"`
	// How long a command may take whose caller has set no deadline. Default 15s.
	ProposeTimeout time.Duration `yaml:"propose_timeout"`
	// Bytes of log after which a snapshot is taken and the log cut. Default 64 MiB.
	SnapshotBytes uint64 `yaml:"snapshot_bytes"`
	// Entries kept behind a snapshot, so that a server that was away for a while needs no snapshot. Default 10240.
	TrailingEntries uint64 `yaml:"trailing_entries"`
	// Size of one file of the log. Default 64 MiB.
	SegmentBytes int `yaml:"segment_bytes"`
	// Largest command. Default 1 MiB.
	CommandBytes int `yaml:"command_bytes"`
}

// minElection is the least heartbeat and election timeout of a server that is not under test.
const minElection = 500 * time.Millisecond

// maxBatch is how many entries share a sync, a message to a follower and a transaction of the Machine.
const maxBatch = 512

func (t Tuning) withDefaults() Tuning {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.HeartbeatTimeout, time.Second)
	def(&t.ElectionTimeout, max(time.Second, t.HeartbeatTimeout))
	def(&t.LeaseTimeout, t.HeartbeatTimeout/2)
	def(&t.CommitTimeout, 50*time.Millisecond)
	def(&t.StallTimeout, 2*time.Second)
	def(&t.ProposeTimeout, 15*time.Second)
	if t.SnapshotBytes == 0 {
		t.SnapshotBytes = 64 << 20
	}
	if t.TrailingEntries == 0 {
		t.TrailingEntries = 10240
	}
	if t.CommandBytes == 0 {
		t.CommandBytes = 1 << 20
	}
	return t
}

func (t Tuning) check() error {
	switch {
	case t.HeartbeatTimeout < minElection:
		return fmt.Errorf("heartbeat_timeout is %v: it has to be at least %v, or one slow sync of a disk looks like a dead leader", t.HeartbeatTimeout, minElection)
	case t.ElectionTimeout < t.HeartbeatTimeout:
		return fmt.Errorf("election_timeout is %v: it has to be at least heartbeat_timeout, which is %v", t.ElectionTimeout, t.HeartbeatTimeout)
	case t.LeaseTimeout > t.HeartbeatTimeout:
		return fmt.Errorf("lease_timeout is %v: it has to be at most heartbeat_timeout, which is %v", t.LeaseTimeout, t.HeartbeatTimeout)
	}
	return nil
}

func (c *Config) check() error {
	switch {
	case c.ServerID == "" || c.Federation == "":
		return errors.New("a server needs an id and a federation")
	case c.Dir == "":
		return errors.New("a server needs a data folder")
	case c.Address == "":
		return errors.New("a server needs an address where its peers reach it")
	case c.Machine == nil:
		return errors.New("a server needs a machine")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	c.Tuning = c.Tuning.withDefaults()
	return nil
}

func (c *Config) raft(notify chan<- bool) *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.ServerID)
	r.HeartbeatTimeout = c.Tuning.HeartbeatTimeout
	r.ElectionTimeout = c.Tuning.ElectionTimeout
	r.LeaderLeaseTimeout = c.Tuning.LeaseTimeout
	r.CommitTimeout = c.Tuning.CommitTimeout
	r.MaxAppendEntries = maxBatch
	r.BatchApplyCh = true
	r.TrailingLogs = c.Tuning.TrailingEntries
	// Snapshots are taken by bytes, by a loop of ours.
	r.SnapshotThreshold = math.MaxUint64
	r.SnapshotInterval = 24 * time.Hour
	// The Machine's state is durable, and the checks before the start have made it fit the log.
	r.NoSnapshotRestoreOnStart = true
	// Who is removed has to say so before it ends.
	r.ShutdownOnRemove = false
	r.NotifyCh = notify
	r.NoLegacyTelemetry = true
	r.Logger = logger{to: c.Logger}
	return r
}
