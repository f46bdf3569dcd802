package zoneagent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

const (
	zoneID   = "0192f000-0000-7000-8000-000000000001"
	patience = 30 * time.Second
)

var silent = slog.New(slog.DiscardHandler)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// zone is one of real agents on loopback addresses of their own, with real etcd and certificates. No broker answers; what the
// control plane wants, the test tells the store.
type zone struct {
	*testing.T
	links    *pki.Authority
	net      string
	revision uint64
	own      *etcdstore.Ownership // of the link, once the test wants something
}

func newZone(t *testing.T) *zone {
	t.Helper()
	root := must(pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, time.Now()))
	return &zone{
		T: t, links: must(pki.NewAuthority(pki.AuthorityLinks, "naru.test", root, time.Now())),
		net: fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), rand.IntN(250)),
	}
}

// config is of the n-th agent, as its file says it. It has not joined.
func (z *zone) config(n int, more string) *Config {
	z.Helper()
	ip := fmt.Sprintf("%s.%d", z.net, n)
	file := filepath.Join(z.TempDir(), "zoneagent.yaml")
	text := strings.NewReplacer("IP", ip, "NAME", fmt.Sprintf("agent-%d", n), "DATA", z.TempDir(), "GONE", z.net+".99").Replace(`
name: NAME
data: DATA
brokers: ["GONE:7443"]
edge: {address: "IP:8443", names: [edge.test]}
agent: {address: "IP:7445"}
gossip: {address: "IP:7946"}
etcd: {client_address: "IP:2379", peer_address: "IP:2380", tick: 10ms, election: 100ms}
metrics_address: "IP:9443"
`) + more
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		z.Fatal(err)
	}
	return must(LoadConfig(file))
}

// join lets an agent into the zone, as a control plane does.
func (z *zone) join(c *Config) *Config {
	z.Helper()
	i := must(openIdentity(c, silent))
	id := must(pki.AgentID("naru.test", zoneID, c.Name))
	if err := i.Link.Set(must(z.links.Issue(i.Link.Key().Public(), id, pki.IssueOptions{Now: time.Now()}))); err != nil {
		z.Fatal(err)
	}
	return c
}

// first is the zone's first agent, opened; parts of it run as the test says.
func (z *zone) first() *Agent { return z.open(z.join(z.config(1, ""))) }

// further is an agent that has entered at a running one.
func (z *zone) further(n int, at *Agent) *Agent {
	z.Helper()
	return z.open(z.join(z.config(n, fmt.Sprintf("peers: [%q]\nzone_pin: %s\n", at.config.Agent.Address, pki.Pin(at.identity.Root())))))
}

func (z *zone) open(c *Config) *Agent {
	z.Helper()
	ctx, cancel := context.WithTimeout(z.Context(), patience)
	defer cancel()
	a, err := New(ctx, c, silent)
	if err != nil {
		z.Fatal(err)
	}
	z.Cleanup(sync.OnceFunc(a.close))
	return a
}

// run runs a part until stop is called or the test ends.
func (z *zone) run(part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := part(ctx); err != nil && ctx.Err() == nil {
			z.Errorf("a part ended with %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	z.Cleanup(stop)
	return stop
}

// eventually waits for what must come true by events alone; a look every few milliseconds is only how it is seen.
func (z *zone) eventually(what string, is func() bool) {
	z.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			z.Fatalf("never: %s", what)
		}
	}
}

// want tells the store, as the owner of the link does, what the control plane wants.
func (z *zone) want(a *Agent, objects ...*linkv1.Object) {
	z.Helper()
	if z.own == nil {
		z.own = must(a.store.Campaign(z.Context(), etcdstore.UplinkName))
	}
	chunk := &linkv1.StateChunk{Epoch: 1, After: z.revision, Full: z.revision == 0, End: true}
	for _, o := range objects {
		z.revision++
		o.Revision = z.revision
		chunk.Objects = append(chunk.Objects, o)
	}
	chunk.Through = z.revision
	if err := a.store.DesiredSink(z.own).Commit(z.Context(), chunk); err != nil {
		z.Fatal(err)
	}
}

func cluster(name string) *linkv1.Object {
	return &linkv1.Object{Noun: &linkv1.Object_Cluster{Cluster: &apiv1.Cluster{
		Id: "id-" + name, Name: name, ZoneId: zoneID, Hypervisor: "sim", Generation: &apiv1.Generation{Epoch: 1, Index: 1},
	}}}
}

func host(name, ofCluster, endpoint string) *linkv1.Object {
	return &linkv1.Object{Noun: &linkv1.Object_Host{Host: &apiv1.Host{
		Id: "id-" + name, Name: name, ClusterId: "id-" + ofCluster, Endpoint: endpoint, Generation: &apiv1.Generation{Epoch: 1, Index: 1},
	}}}
}

func gone(kind, name string) *linkv1.Object {
	return &linkv1.Object{Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{
		Noun: &apiv1.Reference{Kind: kind, Id: "id-" + name}, Generation: &apiv1.Generation{Epoch: 1, Index: 100},
	}}}
}

// ownerOf is the agent that owns a cluster, empty where none does.
func (z *zone) ownerOf(a *Agent, name string) string {
	z.Helper()
	return must(a.store.Owners(z.Context()))[etcdstore.ClusterName("id-"+name)]
}
