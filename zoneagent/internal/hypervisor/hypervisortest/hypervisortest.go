// Package hypervisortest is the contract of package hypervisor as a suite that every driver's tests call.
//
// It asks a driver for nothing but a bench: a host to work on, an image that boots there, and machines that fit. It
// makes few guests run, and none at the same time as another, so that it can be run on emulated processors.
package hypervisortest

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Bench is a driver set up for one test.
type Bench struct {
	Driver hypervisor.Driver
	Host   *apiv1.Host
	// Image that boots on the host and prints its ReadyMarker, and its bits.
	Image     hypervisor.Image
	ImageBits []byte
	// Machine returns a new machine of that image, with an id of its own. Two of them fit on the host.
	Machine func(t *testing.T) hypervisor.Machine
	// Write puts a word on the disk of a VM that is off, over the one before, as a guest might have; Read returns it, "" where
	// none was ever written.
	Write func(t *testing.T, m hypervisor.Machine, word string)
	Read  func(t *testing.T, m hypervisor.Machine) string
	// LoseReply arranges that the call about to be made has its effect and its answer lost. The step is "disk", "seed",
	// "define", "start", "forced stop", "size", "snapshot", "restore", "drop" or "gone".
	LoseReply func(t *testing.T, step string)
	// Patience is how long a guest may take to start or to power off.
	Patience time.Duration
}

// Run runs the suite; open is called once for each of its tests.
func Run(t *testing.T, open func(t *testing.T) Bench) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *session)
	}{
		{"an endpoint of another form is refused for good", foreignEndpoint},
		{"a host says what it has, the operator's word first", inventory},
		{"a host's own counters grow", sample},
		{"an image is fetched once", imageOnce},
		{"an image with another digest is refused and leaves nothing to build on", wrongDigest},
		{"an image that refers to other files is refused for good", backingFile},
		{"a vm that the host does not know is missing, stopped and gone", missing},
		{"a call whose deadline has passed does nothing", pastDeadline},
		{"every step can be repeated, and a disk is kept", repeated},
		{"a defined vm's address is known by its host", addressed},
		{"a closed handle fails and leaves the vms alone", closed},
		{"looking at all says what looking at each says", bulk},
		{"an answer that was lost is mended by calling again", lostReply},
		{"an agent that dies between any two steps is followed by one that ends the work", successor},
		{"a vm that is off gets another size, and its disk only grows", resized},
		{"a vm that is on is resized live, or left as it is", resizedOn},
		{"what a vm's disk held is kept, and restored", restored},
		{"a vm that is on is neither kept nor restored", keptOn},
		{"a vm in the trash keeps what it has and comes back, and what is gone leaves nothing", reclaimed},
		{"a reply that was lost while resizing, keeping or restoring is mended by calling again", lostOnDisk},
		{"a vm lives: built, started, usable, rebooted, stopped, started again, gone", life},
	} {
		t.Run(test.name, func(t *testing.T) {
			bench := open(t)
			test.run(t, newSession(t, bench))
		})
	}
}

// session is a bench with a handle on its host.
type session struct {
	Bench
	host hypervisor.Host
	ctx  context.Context
}

func newSession(t *testing.T, bench Bench) *session {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	s := &session{Bench: bench, ctx: ctx}
	s.reopen(t)
	return s
}

// reopen drops the handle, as an agent's death does, and opens the host anew.
func (s *session) reopen(t *testing.T) {
	t.Helper()
	if s.host != nil {
		ok(t, s.host.Close())
	}
	host, err := s.Driver.Open(s.ctx, s.Host)
	ok(t, err)
	s.host = host
	t.Cleanup(func() { host.Close() })
}

// machine returns a new machine that is gone when the test ends.
func (s *session) machine(t *testing.T) hypervisor.Machine {
	t.Helper()
	m := s.Machine(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		host, err := s.Driver.Open(ctx, s.Host)
		ok(t, err)
		defer host.Close()
		if err := host.EnsureGone(ctx, m.VM.GetId()); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return m
}

// bits opens the bench's image.
func (s *session) bits() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.ImageBits)), nil
}

// step is one of the calls by which a VM comes to run.
type step struct {
	name string
	call func(context.Context, hypervisor.Machine) error
}

// steps returns them in order, on whatever handle is open when they are called.
func (s *session) steps() []step {
	return []step{
		{"image", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureImage(ctx, s.Image, s.bits)
		}},
		{"disk", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureDisk(ctx, m) }},
		{"seed", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureSeed(ctx, m) }},
		{"define", func(ctx context.Context, m hypervisor.Machine) error { return s.host.EnsureDefined(ctx, m) }},
		{"start", func(ctx context.Context, m hypervisor.Machine) error {
			return s.host.EnsureStarted(ctx, m.VM.GetId())
		}},
	}
}

// build brings a machine to be defined and off.
func (s *session) build(t *testing.T, m hypervisor.Machine) {
	t.Helper()
	for _, step := range s.steps() {
		if step.name == "start" {
			return
		}
		if err := step.call(s.ctx, m); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
	}
}

func (s *session) observe(t *testing.T, m hypervisor.Machine) hypervisor.Observation {
	t.Helper()
	o, err := s.host.Observe(s.ctx, m.VM.GetId())
	ok(t, err)
	if o.VMID != m.VM.GetId() {
		t.Fatalf("asked for %s, told of %s", m.VM.GetId(), o.VMID)
	}
	return o
}

// await looks until the observation is as wished, and fails when patience ends.
func (s *session) await(t *testing.T, m hypervisor.Machine, wish string, is func(hypervisor.Observation) bool) hypervisor.Observation {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, s.Patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		o := s.observe(t, m)
		if is(o) {
			return o
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v the vm is not %s: %+v", s.Patience, wish, o)
		}
	}
}

func (s *session) is(t *testing.T, m hypervisor.Machine, power apiv1.VM_Power) {
	t.Helper()
	if o := s.observe(t, m); o.Power != power {
		t.Fatalf("power is %v, want %v", o.Power, power)
	}
}

func off(o hypervisor.Observation) bool   { return o.Power == apiv1.VM_OFF }
func ready(o hypervisor.Observation) bool { return o.Power == apiv1.VM_ON && o.Ready }

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
