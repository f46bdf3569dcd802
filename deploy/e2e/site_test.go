package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// patience is how long anything here may take that is waited for. It is no assertion: what fails then hangs.
const patience = 90 * time.Second

// standing is a federation that stands, in a folder of its own.
type standing struct {
	dir   string
	admin *client.Client
	// secrets are what was used at it, and must be in no log.
	secrets []string
}

// raise brings a site up with `naru-dev run` and takes it down when the test ends. Of a test that failed it shows what
// happened, and the end of every process's log.
func raise(t testing.TB, flags ...string) *standing {
	t.Helper()
	s := &standing{dir: t.TempDir()}
	cmd := exec.Command(program("naru-dev"), append([]string{"run", "--state", s.dir}, flags...)...)
	// A test that is killed takes its site with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var story bytes.Buffer
	cmd.Stderr = &story
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.showLogs(t)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("naru-dev: %v\n%s", err, story.String())
		}
	})
	var up site
	if err := json.NewDecoder(out).Decode(&up); err != nil || !up.Walk.OK {
		t.Fatalf("the site did not come up: %v", err)
	}
	go io.Copy(io.Discard, out)
	s.admin = s.client(t, "control")
	return s
}

// client returns a client of a network's API.
func (s *standing) client(t testing.TB, network string) *client.Client {
	t.Helper()
	config, err := client.LoadConfig(s.path("cli", network+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *standing) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// dev runs naru-dev on the site: kill, start, cut, heal, exec.
func (s *standing) dev(t testing.TB, args ...string) {
	t.Helper()
	run(t, exec.CommandContext(t.Context(), program("naru-dev"), append([]string{"--state", s.dir}, args...)...))
}

// at runs one of the programs where a process of the site is, with that one's configuration.
func (s *standing) at(t testing.TB, process, name, command string, args ...string) {
	t.Helper()
	s.dev(t, append([]string{"exec", process, "--", program(name), command, "--config", s.path("config", process+".yaml")}, args...)...)
}

// naru runs the command line in a network and returns what it printed.
func (s *standing) naru(t testing.TB, network string, args ...string) string {
	t.Helper()
	return run(t, s.command(t.Context(), network, args...))
}

func (s *standing) command(ctx context.Context, network string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program("naru"), args...)
	cmd.Env = append(os.Environ(), "NARU_CONFIG="+s.path("cli", network+".yaml"))
	return cmd
}

func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var told bytes.Buffer
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, told.String())
	}
	return string(out)
}

// status returns the site as it is now.
func (s *standing) status(t testing.TB) (now site) {
	t.Helper()
	out := run(t, exec.CommandContext(t.Context(), program("naru-dev"), "--state", s.dir, "status"))
	if err := json.Unmarshal([]byte(out), &now); err != nil {
		t.Fatal(err)
	}
	return now
}

// leader returns the name of the server that leads.
func (s *standing) leader(t testing.TB) (name string) {
	t.Helper()
	s.until(t, "a server leads", func(ctx context.Context) (bool, error) {
		r, err := s.admin.Servers.ListServers(ctx, &apiv1.ListServersRequest{})
		for _, server := range r.GetServers() {
			if server.GetRole() == apiv1.Server_LEADER && server.GetHealthy() {
				name = server.GetName()
			}
		}
		return name != "", err
	})
	return name
}

// vm waits until a VM of project web, as it changes, is as it should be, and returns it.
func (s *standing) vm(t testing.TB, name, what string, is func(*apiv1.VM) bool) *apiv1.VM {
	t.Helper()
	return await(s, t, "VM "+name+" "+what, func(ctx context.Context) (grpc.ServerStreamingClient[apiv1.WatchVMsResponse], error) {
		return s.admin.VMs.WatchVMs(ctx, &apiv1.WatchVMsRequest{Project: "web", Filter: "name=" + name})
	}, (*apiv1.WatchVMsResponse).GetVm, is)
}

// zone waits until a zone is as it should be.
func (s *standing) zone(t testing.TB, name, what string, is func(*apiv1.Zone) bool) *apiv1.Zone {
	t.Helper()
	return await(s, t, "zone "+name+" "+what, func(ctx context.Context) (grpc.ServerStreamingClient[apiv1.WatchZonesResponse], error) {
		return s.admin.Zones.WatchZones(ctx, &apiv1.WatchZonesRequest{Filter: "name=" + name})
	}, (*apiv1.WatchZonesResponse).GetZone, is)
}

// host waits until a host has been seen and can be used.
func (s *standing) host(t testing.TB, name string) *apiv1.Host {
	t.Helper()
	return await(s, t, "host "+name, func(ctx context.Context) (grpc.ServerStreamingClient[apiv1.WatchHostsResponse], error) {
		return s.admin.Hosts.WatchHosts(ctx, &apiv1.WatchHostsRequest{Filter: "name=" + name})
	}, (*apiv1.WatchHostsResponse).GetHost, func(h *apiv1.Host) bool { return h.GetHealth() == apiv1.Host_AVAILABLE })
}

// ended waits until an operation is done.
func (s *standing) ended(t testing.TB, filter string) *apiv1.Operation {
	t.Helper()
	return await(s, t, "the end of operation "+filter, func(ctx context.Context) (grpc.ServerStreamingClient[apiv1.WatchOperationsResponse], error) {
		return s.admin.Operations.WatchOperations(ctx, &apiv1.WatchOperationsRequest{Filter: filter})
	}, (*apiv1.WatchOperationsResponse).GetOperation, (*apiv1.Operation).GetDone)
}

// event waits until something has happened.
func (s *standing) event(t testing.TB, filter string) *apiv1.Event {
	t.Helper()
	return await(s, t, "event "+filter, func(ctx context.Context) (grpc.ServerStreamingClient[apiv1.WatchEventsResponse], error) {
		return s.admin.Events.WatchEvents(ctx, &apiv1.WatchEventsRequest{Filter: filter})
	}, (*apiv1.WatchEventsResponse).GetEvent, func(*apiv1.Event) bool { return true })
}

// happened returns the events that match a filter, the first ones first.
func (s *standing) happened(t testing.TB, filter string) []*apiv1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.admin.Events.ListEvents(ctx, &apiv1.ListEventsRequest{Filter: filter, OrderBy: "time", PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetEvents()
}

// change is what a watch sends.
type change[M any] interface {
	*M
	GetType() apiv1.WatchType_Value
}

// await reads a watch, which it opens again where whoever served it has died, until a noun is as it should be.
func await[N, M any, C change[M]](s *standing, t testing.TB, what string, open func(context.Context) (grpc.ServerStreamingClient[M], error), noun func(C) N, is func(N) bool) (found N) {
	t.Helper()
	s.until(t, what, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watch, err := open(ctx)
		for err == nil {
			var m *M
			if m, err = watch.Recv(); err == nil && C(m).GetType() == apiv1.WatchType_PUT {
				if found = noun(m); is(found) {
					return true, nil
				}
			}
		}
		return false, err
	})
	return found
}

// until tries again while the control plane cannot be asked, until what is waited for has come.
func (s *standing) until(t testing.TB, what string, try func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		ok, err := try(ctx)
		if ok {
			return
		}
		// OUT_OF_RANGE is a watch that has to begin anew: the epoch is another.
		if code := status.Code(err); ctx.Err() == nil && err != nil && code != codes.Unavailable && code != codes.OutOfRange && !errors.Is(err, io.EOF) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v", what, err)
		case <-again.C:
		}
	}
}

// showLogs shows the end of each process's log.
func (s *standing) showLogs(t testing.TB) {
	events, _ := s.command(context.Background(), "control", "event", "list", "--filter", "severity!=INFO", "--order-by", "time", "--limit", "0").CombinedOutput()
	t.Logf("events:\n%s", events)
	logs, _ := filepath.Glob(s.path("log", "*.log"))
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		t.Logf("%s:\n%s", filepath.Base(log), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}
