// Package sim is a driver whose hosts are simulated: a fleet in one process, for demonstrations, scale and fault tests.
//
// A host is made by its first call and lives as long as the Fleet, however often it is opened and closed: the
// hypervisor outlives the agent. With a state folder it outlives the process too, and several agents that share the
// folder see the same hosts: every call then runs under a lock on the host's file and reads what the others wrote.
//
// What a host does wrong is set in its endpoint and, for tests, at run time through Knobs. Chance comes from the
// endpoint's seed and the host's id: calls made in the same order fail in the same places. Time is time.Now, so that a
// test in a synctest bubble owns it.
package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// ErrUnreachable: the host does not answer, because it is dead or cut off.
var ErrUnreachable = errors.New("simulated host does not answer")

// ErrInjected: the call failed by chance or by order, and had no effect.
var ErrInjected = errors.New("simulated failure")

// ErrReplyLost: the call had its effect and its answer was lost.
var ErrReplyLost = errors.New("simulated loss of the reply")

// Options of a fleet. The zero value keeps all state in memory and says nothing.
type Options struct {
	// StateDir keeps a file a host; empty keeps the state in memory.
	StateDir string
	Logger   *slog.Logger
}

// Fleet is a driver and all the hosts that it has opened.
type Fleet struct {
	options Options

	mu    sync.Mutex
	hosts map[string]*host // by id
}

var _ hypervisor.Driver = (*Fleet)(nil)

// New returns a fleet without hosts.
func New(options Options) (*Fleet, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.StateDir != "" {
		if err := os.MkdirAll(options.StateDir, 0o700); err != nil {
			return nil, fmt.Errorf("state folder of the simulated hosts: %w", err)
		}
	}
	return &Fleet{options: options, hosts: map[string]*host{}}, nil
}

// Open reads the endpoint, which may differ from the one before: the knobs are set anew, the VMs stay.
func (f *Fleet) Open(ctx context.Context, wanted *apiv1.Host) (hypervisor.Host, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	settings, err := parseEndpoint(wanted.GetEndpoint())
	if err != nil {
		return nil, hypervisor.Fatal(fmt.Errorf("endpoint of host %s: %w", wanted.GetName(), err))
	}
	if wanted.GetId() == "" {
		return nil, hypervisor.Fatal(fmt.Errorf("host %s has no id", wanted.GetName()))
	}
	if filepath.Base(wanted.GetId()) != wanted.GetId() || wanted.GetId() == ".." {
		return nil, hypervisor.Fatal(fmt.Errorf("%q is not a host id", wanted.GetId()))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h, known := f.hosts[wanted.GetId()]
	if !known {
		h = newHost(f, wanted.GetId())
		f.hosts[wanted.GetId()] = h
	}
	h.configure(settings)
	return &handle{host: h, override: wanted.GetCapacity()}, nil
}

// Knobs returns what a test can do to a host that was opened before; nil for an unknown one.
func (f *Fleet) Knobs(hostID string) *Knobs {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, known := f.hosts[hostID]
	if !known {
		return nil
	}
	return &Knobs{host: h}
}

// Running returns the ids of the hosts on which the VM is on now, dead hosts left out. More than one breaks P3.
func (f *Fleet) Running(vmID string) []string {
	var ids []string
	for _, h := range f.all() {
		h.peek(func(s *state) {
			if v := s.VMs[vmID]; v != nil && v.on() {
				ids = append(ids, h.id)
			}
		})
	}
	return ids
}

// Creations returns how often the VM was made from nothing, over all hosts, for as long as the fleet's state lives.
// One key, one VM (P2): anything but 1 is a duplicate or a loss.
func (f *Fleet) Creations(vmID string) int {
	total := 0
	for _, h := range f.all() {
		h.peek(func(s *state) { total += s.Creations[vmID] })
	}
	return total
}

// all returns the fleet's hosts in the order of their ids.
func (f *Fleet) all() []*host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sortedValues(f.hosts)
}
