package sim_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor/sim"
)

func open(t interface{ Fatal(...any) }, fleet *sim.Fleet, host *apiv1.Host) hypervisor.Host {
	opened, err := fleet.Open(context.Background(), host)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// start brings a machine to run.
func start(t interface{ Fatal(...any) }, host hypervisor.Host, m hypervisor.Machine) {
	ctx := context.Background()
	for _, err := range []error{
		host.EnsureImage(ctx, image(), openBits), host.EnsureDisk(ctx, m), host.EnsureSeed(ctx, m),
		host.EnsureDefined(ctx, m), host.EnsureStarted(ctx, m.VM.Id),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func power(t interface{ Fatal(...any) }, host hypervisor.Host, m hypervisor.Machine) apiv1.VM_Power {
	o, err := host.Observe(context.Background(), m.VM.Id)
	if err != nil {
		t.Fatal(err)
	}
	return o.Power
}

func TestAKilledHostAnswersNothingAndComesBackWithItsVMsOff(t *testing.T) {
	fleet, wanted, m := newFleet(t, sim.Options{}), simHost(""), machine()
	host := open(t, fleet, wanted)
	start(t, host, m)
	knobs := fleet.Knobs(wanted.Id)
	knobs.Kill()
	if _, err := host.Observe(context.Background(), m.VM.Id); !errors.Is(err, sim.ErrUnreachable) || hypervisor.IsFatal(err) {
		t.Fatalf("a dead host answers %v", err)
	}
	if on := fleet.Running(m.VM.Id); len(on) != 0 {
		t.Fatalf("it runs on %v", on)
	}
	knobs.Restore()
	if got := power(t, host, m); got != apiv1.VM_OFF {
		t.Fatalf("after the power came back: %v", got)
	}
}

func TestACutOffHostRunsItsVMsOn(t *testing.T) {
	fleet, wanted, m := newFleet(t, sim.Options{}), simHost(""), machine()
	host := open(t, fleet, wanted)
	start(t, host, m)
	knobs := fleet.Knobs(wanted.Id)
	knobs.Cut()
	if _, err := host.ObserveAll(context.Background()); !errors.Is(err, sim.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if on := fleet.Running(m.VM.Id); !slices.Equal(on, []string{wanted.Id}) {
		t.Fatalf("it runs on %v", on)
	}
	knobs.Heal()
	if got := power(t, host, m); got != apiv1.VM_ON {
		t.Fatalf("after healing: %v", got)
	}
}

// P3 is judged by this count.
func TestAVMThatRunsTwiceIsSeen(t *testing.T) {
	fleet, m := newFleet(t, sim.Options{}), machine()
	first, second := simHost(""), simHost("")
	start(t, open(t, fleet, first), m)
	start(t, open(t, fleet, second), m)
	if on := fleet.Running(m.VM.Id); len(on) != 2 {
		t.Fatalf("runs on %v", on)
	}
	if n := fleet.Creations(m.VM.Id); n != 2 {
		t.Fatalf("made %d times", n)
	}
}

func TestAnInjectedFailureHasNoEffectAndALostReplyHasOne(t *testing.T) {
	ctx, fleet, wanted, m := context.Background(), newFleet(t, sim.Options{}), simHost(""), machine()
	host := open(t, fleet, wanted)
	start(t, host, m)
	knobs := fleet.Knobs(wanted.Id)
	knobs.FailNext(2)
	for range 2 {
		if err := host.EnsureStopped(ctx, m.VM.Id, true); !errors.Is(err, sim.ErrInjected) {
			t.Fatalf("got %v", err)
		}
	}
	if got := power(t, host, m); got != apiv1.VM_ON {
		t.Fatalf("a failed call had an effect: %v", got)
	}
	knobs.LoseNext(1)
	if err := host.EnsureStopped(ctx, m.VM.Id, true); !errors.Is(err, sim.ErrReplyLost) {
		t.Fatalf("got %v", err)
	}
	if got := power(t, host, m); got != apiv1.VM_OFF {
		t.Fatalf("a call whose reply was lost had no effect: %v", got)
	}
	knobs.PowerOff(m.VM.Id)
	knobs.Lose(m.VM.Id)
	if got := power(t, host, m); got != apiv1.VM_MISSING {
		t.Fatalf("a lost vm is %v", got)
	}
	if got := knobs.Starts(m.VM.Id); got != 1 {
		t.Fatalf("started %d times", got)
	}
}

// P2: however calls fail and replies are lost, a worker that calls again until it hears yes makes one VM.
func TestAStubbornWorkerMakesOneVMOnAFaultyHost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		fleet, err := sim.New(sim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		wanted, m := simHost("fail=0.3&lose_reply=0.3"), machine()
		wanted.Endpoint += "&seed=" + rapid.StringMatching(`[1-9][0-9]{0,9}`).Draw(t, "seed")
		host := open(t, fleet, wanted)
		for _, step := range []func() error{
			func() error { return host.EnsureImage(ctx, image(), openBits) },
			func() error { return host.EnsureDisk(ctx, m) },
			func() error { return host.EnsureSeed(ctx, m) },
			func() error { return host.EnsureDefined(ctx, m) },
			func() error { return host.EnsureStarted(ctx, m.VM.Id) },
		} {
			for step() != nil {
				if rapid.IntRange(0, 3).Draw(t, "die") == 0 {
					host = open(t, fleet, wanted)
				}
			}
		}
		if n := fleet.Creations(m.VM.Id); n != 1 {
			t.Fatalf("made %d times", n)
		}
		if n := fleet.Knobs(wanted.Id).Starts(m.VM.Id); n != 1 {
			t.Fatalf("started %d times", n)
		}
		if on := fleet.Running(m.VM.Id); len(on) != 1 {
			t.Fatalf("runs on %v", on)
		}
	})
}

func TestTheSameSeedFailsInTheSamePlaces(t *testing.T) {
	run := func(seed string) (outcome []bool) {
		wanted := simHost("fail=0.5&seed=" + seed)
		wanted.Id = "host"
		host := open(t, newFleet(t, sim.Options{}), wanted)
		for range 64 {
			_, err := host.Inventory(context.Background())
			outcome = append(outcome, err == nil)
		}
		return outcome
	}
	if !slices.Equal(run("7"), run("7")) {
		t.Error("seed 7 gave two outcomes")
	}
	if slices.Equal(run("7"), run("8")) {
		t.Error("seeds 7 and 8 gave one outcome")
	}
}

func TestTimeDoesWhatTheEndpointSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, fleet, m := context.Background(), newFleet(t, sim.Options{}), machine()
		wanted := simHost("latency=10ms&boot=5s&shutdown=3s&die_after=1h")
		host := open(t, fleet, wanted)
		began := time.Now()
		start(t, host, m)
		if took := time.Since(began); took != 60*time.Millisecond { // the image is looked for, then noted
			t.Errorf("six round trips took %v", took)
		}
		look := func() hypervisor.Observation {
			t.Helper()
			o, err := host.Observe(ctx, m.VM.Id)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		if look().Ready {
			t.Error("ready at once")
		}
		time.Sleep(5 * time.Second)
		if !look().Ready {
			t.Error("not ready in time")
		}
		if err := host.EnsureStopped(ctx, m.VM.Id, false); err != nil {
			t.Fatal(err)
		}
		if look().Power != apiv1.VM_ON {
			t.Error("off at once")
		}
		if err := host.EnsureStarted(ctx, m.VM.Id); err == nil {
			t.Error("started while it shuts down")
		}
		time.Sleep(3 * time.Second)
		if look().Power != apiv1.VM_OFF {
			t.Error("not off in time")
		}
		time.Sleep(time.Hour)
		if _, err := host.Inventory(ctx); !errors.Is(err, sim.ErrUnreachable) {
			t.Errorf("an hour later: %v", err)
		}
		fleet.Knobs(wanted.Id).Restore()
		if look().Power != apiv1.VM_OFF {
			t.Error("died twice")
		}
	})
}

func TestADeadlineThatPassesWhileWaitingLeavesNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleet, wanted, m := newFleet(t, sim.Options{}), simHost(""), machine()
		host := open(t, fleet, wanted)
		start(t, host, m)
		fleet.Knobs(wanted.Id).SetLatency(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := host.EnsureGone(ctx, m.VM.Id); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(began); took != 500*time.Millisecond {
			t.Errorf("returned after %v", took)
		}
		if on := fleet.Running(m.VM.Id); len(on) != 1 {
			t.Errorf("runs on %v", on)
		}
	})
}

func TestCountersOnlyGrowAndLoadStaysWithinTheCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, fleet := context.Background(), newFleet(t, sim.Options{})
		host := open(t, fleet, simHost("cores=4&memory_mib=4096"))
		machines := []hypervisor.Machine{machine(), machine(), machine()}
		for _, m := range machines {
			start(t, host, m)
		}
		before, err := host.ObserveAll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		hostBefore, err := host.Sample(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			time.Sleep(17 * time.Second)
			if i == 50 {
				if err := host.EnsureGone(ctx, machines[0].VM.Id); err != nil {
					t.Fatal(err)
				}
				before = slices.DeleteFunc(before, func(o hypervisor.Observation) bool { return o.VMID == machines[0].VM.Id })
			}
			after, err := host.ObserveAll(ctx)
			if err != nil {
				t.Fatal(err)
			}
			hostAfter, err := host.Sample(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for i := range after {
				a, b := after[i].Counters, before[i].Counters
				if a.CPU <= b.CPU || a.DiskReadBytes < b.DiskReadBytes || a.DiskWriteBytes < b.DiskWriteBytes ||
					a.NetReceiveBytes < b.NetReceiveBytes || a.NetTransmitBytes < b.NetTransmitBytes {
					t.Fatalf("%+v became %+v", b, a)
				}
				if r := a.CPURatio(b); r <= 0 || r >= 1 {
					t.Fatalf("load %v", r)
				}
				if a.MemoryUsedMiB == 0 || a.MemoryUsedMiB > 1024 {
					t.Fatalf("memory %d MiB", a.MemoryUsedMiB)
				}
			}
			if hostAfter.CPUBusy < hostBefore.CPUBusy || hostAfter.CPURatio(hostBefore) <= 0 || hostAfter.MemoryUsedMiB > 4096 {
				t.Fatalf("host: %+v became %+v", hostBefore, hostAfter)
			}
			before, hostBefore = after, hostAfter
		}
	})
}

func TestAHostOutlivesItsAgentInAStateFolder(t *testing.T) {
	folder, wanted, m := t.TempDir(), simHost(""), machine()
	start(t, open(t, newFleet(t, sim.Options{StateDir: folder}), wanted), m)
	later := newFleet(t, sim.Options{StateDir: folder})
	host := open(t, later, wanted)
	if got := power(t, host, m); got != apiv1.VM_ON {
		t.Fatalf("to the next agent it is %v", got)
	}
	if n := later.Creations(m.VM.Id); n != 1 {
		t.Fatalf("made %d times", n)
	}
}

// Two agents' processes are two fleets on one folder.
func TestTwoAgentsOnOneFolderSeeOneHost(t *testing.T) {
	folder, wanted := t.TempDir(), simHost("")
	fleets := []*sim.Fleet{newFleet(t, sim.Options{StateDir: folder}), newFleet(t, sim.Options{StateDir: folder})}
	machines := make([]hypervisor.Machine, 20)
	for i := range machines {
		machines[i] = machine()
	}
	var wait sync.WaitGroup
	for _, fleet := range fleets {
		host := open(t, fleet, wanted)
		wait.Go(func() {
			for _, m := range machines {
				start(t, host, m)
			}
		})
	}
	wait.Wait()
	for _, m := range machines {
		if n := fleets[0].Creations(m.VM.Id); n != 1 {
			t.Errorf("%s was made %d times", m.VM.Id, n)
		}
		if n := fleets[1].Knobs(wanted.Id).Starts(m.VM.Id); n != 1 {
			t.Errorf("%s was started %d times", m.VM.Id, n)
		}
	}
}

func TestADamagedStateFileIsNamed(t *testing.T) {
	folder, wanted := t.TempDir(), simHost("")
	file := filepath.Join(folder, wanted.Id+".json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, newFleet(t, sim.Options{StateDir: folder}), wanted).Inventory(context.Background())
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Fatalf("got %v", err)
	}
}

func TestAnEndpointIsReadToTheLetter(t *testing.T) {
	fleet := newFleet(t, sim.Options{})
	for query, word := range map[string]string{
		"cores=many": "cores", "fail=2": "fail", "lose_reply=NaN": "lose_reply", "latency=5": "latency", "latency=-5s": "latency",
		"memory=1": "memory", "cores=1&cores=2": "cores", "seed=-1": "seed", "cores=1;2": "semicolon",
	} {
		_, err := fleet.Open(context.Background(), simHost(query))
		if !hypervisor.IsFatal(err) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: got %v, want a fatal error that names %s", query, err, word)
		}
	}
	for _, id := range []string{"", "..", "a/b"} {
		host := simHost("")
		host.Id = id
		if _, err := fleet.Open(context.Background(), host); !hypervisor.IsFatal(err) {
			t.Errorf("host id %q: got %v", id, err)
		}
	}
	host := open(t, fleet, simHost("cores=4&memory_mib=1024&disk_gib=7"))
	got, err := host.Inventory(context.Background())
	if err != nil || got.Total.Cores != 4 || got.Total.MemoryMib != 1024 || got.Total.DiskGib != 7 {
		t.Errorf("got %+v, %v", got, err)
	}
}
