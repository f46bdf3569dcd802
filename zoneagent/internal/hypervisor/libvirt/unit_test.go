package libvirt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

func TestAnEndpointSaysWhereTheDaemonListens(t *testing.T) {
	for text, want := range map[string]endpoint{
		"qemu+unix:///system":                          {socket: "/run/libvirt/libvirt-sock"},
		"qemu+unix:///system?socket=/a/b":              {socket: "/a/b"},
		"qemu+tls://kvm-1/system":                      {host: "kvm-1", port: "16514"},
		"qemu+tls://10.90.2.5:17000/system":            {host: "10.90.2.5", port: "17000"},
		"qemu+tls://[fd00::5]/system":                  {host: "fd00::5", port: "16514"},
		"qemu+unix:///system?socket=/run/a%20b/socket": {socket: "/run/a b/socket"},
	} {
		if got, err := parseEndpoint(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "qemu:///system", "qemu+ssh://root@h/system", "qemu+unix:///session", "qemu+unix://h/system", "qemu+tls:///system",
		"qemu+tls://h/system?socket=/a", "qemu+tls://h/system?no_verify=1", "qemu+unix:///system?socket=a", "qemu+unix:///system?socket=/a&socket=/b",
		"qemu+tls://user@h/system", "qemu+unix:///system#x", "qemu+tls://h/system?command=x",
	} {
		if got, err := parseEndpoint(text); err == nil {
			t.Errorf("%s is taken for %+v", text, got)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	f.Add("qemu+unix:///system?socket=/a")
	f.Add("qemu+tls://h:1/system")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEndpoint(text)
		if err == nil && !strings.HasPrefix(e.socket, "/") && (e.host == "" || e.port == "") {
			t.Fatalf("%q leads to %+v", text, e)
		}
	})
}

func TestTLSWithoutACertificateIsRefusedForGood(t *testing.T) {
	_, err := New(Options{}).Open(t.Context(), &apiv1.Host{Endpoint: "qemu+tls://h/system"})
	if !hypervisor.IsFatal(err) {
		t.Fatalf("got %v", err)
	}
}

func TestACertificateIsAskedForAtEachConnection(t *testing.T) {
	asked := 0
	expired := errors.New("expired")
	host, err := New(Options{
		Certificates: func() ([]tls.Certificate, error) { asked++; return nil, expired },
		Roots:        func() *x509.CertPool { return x509.NewCertPool() },
	}).Open(t.Context(), &apiv1.Host{Endpoint: "qemu+tls://127.0.0.1:1/system"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for range 2 {
		before := asked
		if _, err := host.ObserveAll(t.Context()); !errors.Is(err, expired) || hypervisor.IsFatal(err) {
			t.Fatalf("got %v", err)
		}
		if asked == before {
			t.Fatal("nobody asked for the certificate")
		}
	}
}

func TestErrorsThatARetryCannotMendAreFatal(t *testing.T) {
	for err, want := range map[error]bool{
		rpc.Error{Code: uint32(rpc.ErrXMLError)}:          true,
		rpc.Error{Code: uint32(rpc.ErrConfigUnsupported)}: true,
		rpc.Error{Code: uint32(rpc.ErrOperationFailed)}:   false,
		rpc.Error{Code: uint32(rpc.ErrInternalError)}:     false,
		rpc.ErrUnsupported:       true,
		rpc.ErrInterrupted:       false,
		context.DeadlineExceeded: false,
		errClosed:                false,
	} {
		wrapped := wrap(err, "doing %s", "it")
		if hypervisor.IsFatal(wrapped) != want || !errors.Is(wrapped, err) || !strings.HasPrefix(wrapped.Error(), "doing it: ") {
			t.Errorf("%v: fatal %v, %v", err, hypervisor.IsFatal(wrapped), wrapped)
		}
	}
	if wrap(nil, "doing it") != nil {
		t.Error("no error became one")
	}
}

func param(field string, value any) rpc.TypedParam {
	return rpc.TypedParam{Field: field, Value: rpc.TypedParamValue{I: value}}
}

func TestLibvirtsNumbersBecomeAnObservation(t *testing.T) {
	id := uuid.New()
	o := observation(rpc.DomainStatsRecord{
		Dom: rpc.Domain{UUID: rpc.UUID(id), ID: 3},
		Params: []rpc.TypedParam{
			param("state.state", int32(rpc.DomainRunning)), param("cpu.time", uint64(5e9)), param("vcpu.current", uint32(2)), param("vcpu.maximum", uint32(2)),
			param("balloon.rss", uint64(200<<10)), param("balloon.available", uint64(90<<10)), param("balloon.usable", uint64(30<<10)),
			param("block.count", uint32(2)), param("block.0.rd.bytes", uint64(10)), param("block.1.rd.bytes", uint64(5)), param("block.0.wr.bytes", uint64(7)),
			param("net.count", uint32(1)), param("net.0.rx.bytes", uint64(11)), param("net.0.tx.bytes", uint64(13)), param("net.0.name", "vnet0"),
		},
	})
	o.Counters.At = time.Time{}
	want := hypervisor.Observation{VMID: id.String(), Power: apiv1.VM_ON, Counters: hypervisor.VMCounters{
		CPU: 5 * time.Second, Cores: 2, MemoryUsedMiB: 60, DiskReadBytes: 15, DiskWriteBytes: 7, NetReceiveBytes: 11, NetTransmitBytes: 13,
	}}
	if o != want {
		t.Errorf("got %+v\nwant %+v", o, want)
	}
}

func TestAGuestThatTellsNothingIsMeasuredFromOutside(t *testing.T) {
	c := observation(rpc.DomainStatsRecord{Params: []rpc.TypedParam{
		param("state.state", int32(rpc.DomainRunning)), param("balloon.rss", uint64(200<<10)),
		param("vcpu.maximum", uint32(2)), param("vcpu.0.time", uint64(1e9)), param("vcpu.1.time", uint64(2e9)),
	}}).Counters
	if c.MemoryUsedMiB != 200 || c.CPU != 3*time.Second {
		t.Errorf("got %+v", c)
	}
}

func TestPowerIsWhatTheHypervisorSays(t *testing.T) {
	for state, want := range map[rpc.DomainState]apiv1.VM_Power{
		rpc.DomainNostate: apiv1.VM_UNKNOWN, rpc.DomainRunning: apiv1.VM_ON, rpc.DomainBlocked: apiv1.VM_ON, rpc.DomainPaused: apiv1.VM_PAUSED,
		rpc.DomainShutdown: apiv1.VM_ON, rpc.DomainShutoff: apiv1.VM_OFF, rpc.DomainCrashed: apiv1.VM_OFF, rpc.DomainPmsuspended: apiv1.VM_PAUSED,
	} {
		if got := power(map[string]uint64{"state.state": uint64(state)}); got != want {
			t.Errorf("%v is %v, want %v", state, got, want)
		}
	}
	starting := map[string]uint64{"state.state": uint64(rpc.DomainPaused), "state.reason": uint64(rpc.DomainPausedStartingUp)}
	if got := power(starting); got != apiv1.VM_UNKNOWN {
		t.Errorf("a guest on its way up is %v", got)
	}
}

// However the log is cut into looks, the marker is found once all of it has been seen, and never before.
func TestAMarkerIsFoundAcrossLooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := uuid.NewString()
		marker := []byte(hypervisor.ReadyMarker(id))
		noise := rapid.SliceOfN(rapid.OneOf(rapid.Byte(), rapid.SampledFrom(marker)), 0, 100)
		before := noise.Draw(t, "before")
		text := append(append(append([]byte{}, before...), marker...), noise.Draw(t, "after")...)
		log := &serialLog{offset: logHead}
		for at := 0; at < len(text); {
			n := rapid.IntRange(1, len(text)-at).Draw(t, "look")
			log.take(text[at:at+n], marker)
			at += n
			if whole := at >= len(before)+len(marker); log.ready != whole {
				t.Fatalf("after %d bytes ready is %v", at, log.ready)
			}
			if log.offset != logHead+uint64(at) {
				t.Fatalf("offset %d after %d bytes", log.offset, at)
			}
		}
	})
}

func TestANewRunIsReadFromItsBeginning(t *testing.T) {
	logs := serialLogs{vms: map[string]*serialLog{}}
	logs.of("a", 1).take([]byte("naru-ready a"), []byte("naru-ready a"))
	if !logs.of("a", 1).isReady() {
		t.Fatal("forgotten in the same run")
	}
	if again := logs.of("a", 2); again.isReady() || again.offset != logHead {
		t.Fatalf("the next run begins with %+v", again)
	}
	logs.of("b", 3)
	logs.keep(map[string]bool{"b": true})
	if len(logs.vms) != 1 {
		t.Fatalf("kept %d", len(logs.vms))
	}
}

func TestADomainsNameIsForPeopleAndUnique(t *testing.T) {
	if got := domainName("web-1", "01930000-0000-7000-8000-0123456789ab"); got != "naru-web-1-0123456789ab" {
		t.Fatalf("got %s", got)
	}
}

func TestOnlyTheUsualSpellingIsAnID(t *testing.T) {
	good := uuid.NewString()
	if _, err := parseID(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "web-1", "../../etc/passwd", strings.ToUpper("0193abcd-0000-7000-8000-0123456789ab"), "{" + good + "}", "urn:uuid:" + good, strings.ReplaceAll(good, "-", "")} {
		if _, err := parseID(bad); !hypervisor.IsFatal(err) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestOneAtATimePassesALatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLatches()
		release, err := l.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := l.take(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.take(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		release()
		if _, err := l.take(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAHostThatIsDownIsTriedAFewTimesAndNoLongerThanTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused, tries := errors.New("connection refused"), 0
		c := newConnection(func(context.Context) (net.Conn, error) { tries++; return nil, refused }, New(Options{}).options.Logger, NewMetrics(nil))
		began := time.Now()
		if _, err := c.get(t.Context()); !errors.Is(err, refused) || hypervisor.IsFatal(err) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(began); tries != 4 || took > time.Second {
			t.Fatalf("%d tries in %v", tries, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		if _, err := c.get(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, refused) {
			t.Fatalf("got %v", err)
		}
		c.close()
		if _, err := c.get(t.Context()); !errors.Is(err, errClosed) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestVersionsAreSpelledOut(t *testing.T) {
	if got := fmt.Sprint(versionText(7002022), " ", versionText(9000000)); got != "7.2.22 9.0.0" {
		t.Fatalf("got %s", got)
	}
}
