package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/naru-project/naru/deploy/dev"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// ownerGone kills or pauses the agent that owns a cluster, at random moments of a creation there: another agent finishes
// it, and the old owner that comes back does nothing twice.
func ownerGone(t *testing.T, s *standing, rounds, seed int64) {
	cluster := s.slowCluster(t, "business", "owned")
	s.voters(t, "business", 3)
	for i, fault := range []struct {
		name       string
		gone, back func(process string)
	}{
		{"killed", func(p string) { s.dev(t, "kill", p) }, func(p string) { s.dev(t, "start", p) }},
		{"paused", func(p string) { s.signal(t, p, syscall.SIGSTOP) }, func(p string) { s.signal(t, p, syscall.SIGCONT) }},
	} {
		chance := rand.New(rand.NewPCG(uint64(seed), uint64(100+i)))
		for round := range rounds {
			step, delay := moment(chance)
			name := fmt.Sprintf("%s-%d", fault.name, round)
			t.Run(name, func(t *testing.T) {
				owner := s.owner(t, cluster, func(agent string) bool { return agent != "" })
				t.Logf("the owner, %s, is %s %v after step %q", owner, fault.name, delay, step)
				asked := s.ask(t, name, "business", cluster)
				asked.reaches(step, delay)
				fault.gone(process("business", owner))
				other := s.owner(t, cluster, func(agent string) bool { return agent != "" && agent != owner })
				asked.succeeds(t)
				before := s.exactlyOne(t, "business", name)
				t.Logf("%s carried on", other)

				fault.back(process("business", owner))
				s.zone(t, "business", "sees "+owner+" again", func(z *apiv1.Zone) bool {
					return slices.ContainsFunc(z.GetAgents(), func(a *apiv1.Agent) bool { return a.GetName() == owner && a.GetAlive() })
				})
				s.naru(t, "internet", "vm", "create", name+"-next", "--image", "tiny", "--flavor", "s1", "--zone", "business", "--cluster", cluster, "--wait")
				s.exactlyOne(t, "business", name+"-next")
				if after := s.exactlyOne(t, "business", name); !sameMachines([]machine{after}, []machine{before}) {
					t.Errorf("%s came back, and VM %s is %+v; it was %+v", owner, name, after, before)
				}
				s.toldOnce(t, name)
				s.noOrphans(t, "business")
			})
		}
	}
}

// owner waits until a cluster of zone business is owned by such an agent, or by none where that will do.
func (s *standing) owner(t *testing.T, cluster string, is func(agent string) bool) (owner string) {
	t.Helper()
	s.zone(t, "business", "has an owner of "+cluster, func(z *apiv1.Zone) bool {
		owner = ""
		for _, a := range z.GetAgents() {
			if a.GetAlive() && slices.Contains(a.GetClusters(), cluster) {
				owner = a.GetName()
			}
		}
		return is(owner)
	})
	return owner
}

// process names the process of a zone's agent: agent-1 of zone business is agent-business, agent-2 is agent-business-2.
func process(zone, agent string) string {
	return strings.TrimSuffix("agent-"+zone+strings.TrimPrefix(agent, "agent"), "-1")
}

// signal signals a process of the site.
func (s *standing) signal(t *testing.T, process string, signal syscall.Signal) {
	t.Helper()
	for _, p := range s.status(t).Processes {
		if p.Name == process {
			if err := syscall.Kill(p.PID, signal); err != nil {
				t.Fatalf("%v to %s: %v", signal, process, err)
			}
			return
		}
	}
	t.Fatalf("%s does not run", process)
}

// voters waits until the embedded etcd of a zone has as many voting members, by the metric of its first agent.
func (s *standing) voters(t *testing.T, zone string, want int) {
	t.Helper()
	s.until(t, fmt.Sprintf("zone %s has %d voters", zone, want), func(context.Context) (bool, error) {
		return s.metric(t, "agent-"+zone, `naru_etcdstore_members{role="voter"}`) == strconv.Itoa(want), nil
	})
}

// metric returns what an agent's metric shows; empty where it is not there.
func (s *standing) metric(t testing.TB, agent, series string) string {
	t.Helper()
	all := s.namespaces(t)
	i := slices.IndexFunc(all, func(n dev.Namespace) bool { return n.Group == agent })
	if i < 0 {
		t.Fatalf("there is no namespace of %s", agent)
	}
	var config struct {
		Address string `yaml:"metrics_address"`
	}
	b, err := os.ReadFile(s.path("config", agent+".yaml"))
	if err := errors.Join(err, yaml.Unmarshal(b, &config)); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
		err = all[i].Do(func() (err error) {
			c, err = net.Dial(network, address)
			return err
		})
		return c, err
	}}
	r, err := (&http.Client{Transport: transport}).Get("http://" + config.Address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			return value
		}
	}
	return ""
}
