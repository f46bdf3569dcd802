package member

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Limits of a member that this package starts. They are wider than etcd's own defaults, so that a large batch is one
// transaction.
const (
	MaxOps   = 4096
	MaxBytes = 8 << 20
)

// Peer is another member of the cluster that is joined.
type Peer struct {
	Name string
	URL  string
}

// Config says who the member is and where it stands.
type Config struct {
	// Name is the agent's, unique in the zone.
	Name string
	// Cluster keeps clusters of different zones apart: the zone's id.
	Cluster string
	// Dir holds the member's data and nothing else.
	Dir string
	// Peer and Client are the addresses to listen on and to be found at: IP:port in the zone's network.
	Peer, Client string
	// TLS is needed unless both addresses are loopback ones.
	TLS *TLS
	// Join are all members of the cluster, this one among them; empty begins a new cluster.
	Join []Peer
	// Tick and Election are Raft's: 100 ms and 1 s by default.
	Tick, Election time.Duration
	// Quota bounds the database, in bytes: 2 GiB by default.
	Quota int64
	// Compaction is how much history is kept: an hour by default.
	Compaction time.Duration
	// Forget makes the member the only one of its cluster, whatever others there were: the way out of a lost quorum.
	Forget bool
	// NoSync leaves out the disk syncs: for tests only.
	NoSync bool
	Logger *slog.Logger
}

// PeerURL is where other members find a member at the address.
func PeerURL(address string, t *TLS) string { return scheme(t) + "://" + address }

// ClientURL is where clients find a member at the address.
func ClientURL(address string, t *TLS) string { return scheme(t) + "://" + address }

func scheme(t *TLS) string {
	if t == nil {
		return "http"
	}
	return "https"
}

// HasData tells whether a member has lived in dir.
func HasData(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "member", "wal"))
	return err == nil
}

func (c Config) check() error {
	if c.Name == "" || c.Cluster == "" || c.Dir == "" {
		return errors.New("an etcd member needs a name, a cluster and a folder")
	}
	for what, address := range map[string]string{"peer": c.Peer, "client": c.Client} {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%s address %q of the etcd member: it is IP:port: %w", what, address, err)
		}
		if c.TLS == nil && !a.Addr().IsLoopback() {
			return fmt.Errorf("%s address %s of the etcd member is not a loopback address: certificates are needed", what, address)
		}
	}
	if c.TLS != nil {
		return c.TLS.check()
	}
	return nil
}

// embedded is the configuration in etcd's own words.
func (c Config) embedded(log *zap.Logger) (*embed.Config, error) {
	peer, err := url.Parse(PeerURL(c.Peer, c.TLS))
	if err != nil {
		return nil, err
	}
	client, err := url.Parse(ClientURL(c.Client, c.TLS))
	if err != nil {
		return nil, err
	}
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.Dir
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	e.ListenClientUrls, e.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	e.InitialClusterToken = c.Cluster
	e.InitialCluster = c.Name + "=" + peer.String()
	if len(c.Join) > 0 {
		var all []string
		for _, p := range c.Join {
			all = append(all, p.Name+"="+p.URL)
		}
		e.InitialCluster, e.ClusterState = strings.Join(all, ","), embed.ClusterStateFlagExisting
	}
	if c.TLS != nil {
		e.PeerTLSInfo, e.ClientTLSInfo = c.TLS.info(log), c.TLS.info(log)
		e.TlsMinVersion = "TLS1.3"
	}
	e.TickMs, e.ElectionMs = millis(c.Tick, 100*time.Millisecond), millis(c.Election, time.Second)
	e.QuotaBackendBytes = c.Quota
	if e.QuotaBackendBytes == 0 {
		e.QuotaBackendBytes = 2 << 30
	}
	retention := c.Compaction
	if retention == 0 {
		retention = time.Hour
	}
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, retention.String()
	e.MaxTxnOps, e.MaxRequestBytes = MaxOps, MaxBytes
	e.ForceNewCluster, e.UnsafeNoFsync = c.Forget, c.NoSync
	e.EnableGRPCGateway = false
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return e, nil
}

func millis(d, standard time.Duration) uint {
	if d == 0 {
		d = standard
	}
	return uint(d / time.Millisecond)
}

func zapLogger(l *slog.Logger) *zap.Logger {
	return zap.New(&core{log: l}, zap.WithFatalHook(zapcore.WriteThenPanic))
}
