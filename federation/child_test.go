package federation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// childKey in the environment makes the test's program a broker, so that its memory and time can be told from those of
// who dials it. Its value is the configuration.
const childKey = "NARU_TEST_BROKER"

// child is that program. SIGUSR1 makes it give back what memory it does not need.
func child(settings string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ctx, gone := context.WithCancel(ctx)
	go func() { // whoever started this one and was killed leaves nothing behind
		_, _ = io.Copy(io.Discard, os.Stdin)
		gone()
	}()
	tidy := make(chan os.Signal, 1)
	signal.Notify(tidy, syscall.SIGUSR1)
	go func() {
		for range tidy {
			for range 4 { // each collection halves the stacks that have become too large
				debug.FreeOSMemory()
			}
			fmt.Println("tidied")
		}
	}()
	config := federation.DefaultConfig()
	if err := json.Unmarshal([]byte(settings), &config); err != nil {
		return err
	}
	if os.Getenv(bareKey) != "" {
		return bare(ctx, config)
	}
	registry := prometheus.NewRegistry()
	b, err := federation.NewBroker(config, federation.Options{Registerer: registry, Gatherer: registry})
	if err != nil {
		return err
	}
	fmt.Println(b.Fingerprint())
	if err := b.Run(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// bareKey makes the child a gRPC server that echoes frames over TLS, as the library comes: what a broker is measured by.
const bareKey = "NARU_TEST_BARE"

func bare(ctx context.Context, config federation.Config) error {
	h, err := pki.LoadOrCreate(config.StateDir, "broker")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", config.ZoneListen)
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS((&pki.Guard{Pin: config.TrustPin}).Server(h.SelfSigned))))
	linkv1.RegisterZoneLegServiceServer(g, bareServer{})
	context.AfterFunc(ctx, g.Stop)
	fmt.Println(h.Fingerprint())
	return g.Serve(l)
}

type bareServer struct {
	linkv1.UnimplementedZoneLegServiceServer
}

func (bareServer) Connect(leg grpc.BidiStreamingServer[linkv1.Frame, linkv1.Frame]) error {
	for {
		f, err := leg.Recv()
		if err != nil {
			return err
		}
		if err := leg.Send(f); err != nil {
			return err
		}
	}
}

// childSite is a site whose broker is a process of its own.
type childSite struct {
	*site
	process *exec.Cmd
	out     *lines
	admin   string
}

func newChildSite(t testing.TB, change ...func(*federation.Config)) *childSite {
	t.Helper()
	s := &childSite{site: newAuthorities(t)}
	s.registry = prometheus.NewRegistry()
	s.config = federation.DefaultConfig()
	s.config.StateDir, s.config.TrustPin = filepath.Join(t.TempDir(), "state"), pki.Pin(s.root.Certificate)
	s.zoneAddr, s.hubAddr, s.admin = freePort(t), freePort(t), freePort(t)
	s.config.ZoneListen, s.config.HubListen, s.config.AdminListen = s.zoneAddr, s.hubAddr, s.admin
	for _, c := range change {
		c(&s.config)
	}
	s.process = exec.Command(os.Args[0])
	s.process.Env = append(os.Environ(), childKey+"="+string(must(json.Marshal(s.config))))
	s.process.Stderr = os.Stderr
	must(s.process.StdinPipe())
	s.out = newLines(must(s.process.StdoutPipe()))
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := s.process.Wait(); err != nil {
			t.Errorf("the broker ended with %v", err)
		}
	})
	s.fingerprint = s.out.next(t)
	return s
}

// freePort is an address that was free a moment ago.
func freePort(t testing.TB) string {
	l := listen(t, "")
	defer l.Close()
	return l.Addr().String()
}

// resident is the broker's memory in bytes, after it has tidied.
func (s *childSite) resident() int {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGUSR1); err != nil {
		s.t.Fatal(err)
	}
	s.out.next(s.t)
	fields := strings.Fields(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.process.Process.Pid)))))
	return must(strconv.Atoi(fields[1])) * os.Getpagesize()
}

// peak is the most memory that the broker has had, in bytes.
func (s *childSite) peak() int {
	for line := range strings.Lines(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))))) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return must(strconv.Atoi(strings.Fields(kib)[0])) << 10
		}
	}
	s.t.Fatal("no VmHWM")
	return 0
}

// get reads the broker's admin endpoint.
func (s *childSite) get(path string) string {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + s.admin + path)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	return string(must(io.ReadAll(r.Body)))
}

// ready waits until so many servers are there and the broker has its certificate.
func (s *childSite) ready(servers int) {
	s.t.Helper()
	want := fmt.Sprintf(`{"enrolled":true,"servers":%d,`, servers)
	s.eventually("the broker is ready", func() bool { return strings.HasPrefix(s.get("/healthz"), want) })
}
