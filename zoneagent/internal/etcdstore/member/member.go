package member

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// unfinished marks a folder whose restore was cut short.
const unfinished = "restore-unfinished"

// Member is a running member.
type Member struct {
	dir  string
	etcd *embed.Etcd
}

// Start starts the member and returns when it listens; it serves when its cluster has a quorum (Ready). The error
// names the port that is taken, or the folder that cannot be read.
func Start(c Config) (*Member, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(c.Dir, unfinished)); err == nil {
		return nil, fmt.Errorf("etcd folder %s holds a restore that was cut short: empty it and restore the backup again", c.Dir)
	}
	return start(c)
}

func start(c Config) (*Member, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd folder: %w", err)
	}
	ec, err := c.embedded(zapLogger(c.Logger))
	if err != nil {
		return nil, err
	}
	e, err := guarded(ec)
	if err != nil {
		return nil, explain(c, err)
	}
	return &Member{dir: c.Dir, etcd: e}, nil
}

// guarded turns etcd's fatal log lines, which would end the process, into errors.
func guarded(ec *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("etcd gave up: %v", r)
		}
	}()
	return embed.StartEtcd(ec)
}

func explain(c Config, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		address := c.Peer + " or " + c.Client
		var op *net.OpError
		if errors.As(err, &op) && op.Addr != nil {
			address = op.Addr.String()
		}
		return fmt.Errorf("address %s is taken by another process: stop that one, or give etcd another port: %w", address, err)
	}
	if HasData(c.Dir) {
		return fmt.Errorf("etcd cannot start from folder %s; if it is damaged, move it away and let the agent join anew, or restore a backup: %w", c.Dir, err)
	}
	return fmt.Errorf("start etcd: %w", err)
}

// Ready is closed when the member serves.
func (m *Member) Ready() <-chan struct{} { return m.etcd.Server.ReadyNotify() }

// Stopped is closed when the member has ended: closed, or removed from its cluster.
func (m *Member) Stopped() <-chan struct{} { return m.etcd.Server.StopNotify() }

// ID is the member's in its cluster.
func (m *Member) ID() uint64 { return uint64(m.etcd.Server.MemberID()) }

// Direct is a client that reaches this member without the network.
func (m *Member) Direct() *clientv3.Client { return v3client.New(m.etcd.Server) }

// Close ends the member; its data stays.
func (m *Member) Close() { m.etcd.Close() }
