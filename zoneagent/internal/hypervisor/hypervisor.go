// Package hypervisor is the contract between the zone agent and whatever runs virtual machines.
//
// A driver is a folder beside this file; the composition root holds the literal map from a cluster's hypervisor word
// to its driver. Every driver passes the suite in hypervisortest, which is this contract in executable form.
//
// # What every driver keeps
//
//  1. The VM's id is decided before the first call, and is the only name by which a VM is found again.
//  2. Ensure calls state an end, not a deed. Each can be called again at any time, from any step, by any agent, and
//     changes nothing when the end is reached already. Nothing is ever created without looking first, and nothing that
//     holds a guest's data is ever overwritten.
//  3. A call's outcome may be unknown: its reply was lost, its deadline passed, the agent died. The caller learns the
//     truth from Observe and calls again; a driver never guesses and never reports success that it has not seen.
//  4. The context's deadline is the fence of the cluster's owner. No call returns later than it, and no call starts an
//     effect after it: a context that is done already does nothing at all. EnsureStarted looks at it once more right
//     before the one step that makes a guest run.
//  5. Errors are temporary unless they are Fatal. A driver keeps no retry policy beyond reconnecting.
//  6. Observing never changes anything, and an unknown VM is an observation (MISSING), not an error. An error from
//     Observe means that nothing is known; it never means that the VM is gone.
//  7. A driver sees, counts and touches only the VMs that it made.
//  8. All methods may be called concurrently; calls for one VM are serialised by the caller.
package hypervisor

import (
	"context"
	"io"
	"net/netip"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Driver opens the hosts of one kind of hypervisor.
type Driver interface {
	// Open returns a handle on the host behind host.endpoint. It reads the endpoint and does not connect: a host that
	// is down opens, and its calls fail. An endpoint that is not of this driver's form is a Fatal error that says what
	// is wrong with it.
	Open(ctx context.Context, host *apiv1.Host) (Host, error)
}

// Host is one machine that runs guests. It reconnects by itself; Close ends it.
type Host interface {
	// Inventory returns what the host has in all, with host.capacity applied, and is also the cheapest proof that the
	// host answers.
	Inventory(ctx context.Context) (Inventory, error)

	// EnsureImage makes the image's bits present and verified on the host. It calls open only when they are not there.
	// Bits with another digest than the image's are refused and leave nothing that a disk could be based on. A file
	// that refers to other files (a backing file, an external data file) is a Fatal error. It can take minutes, so give
	// it a context that ends when ownership does, not one with a deadline of seconds.
	EnsureImage(ctx context.Context, image Image, open func() (io.ReadCloser, error)) error
	// EnsureDisk gives the VM a disk of its own, based on its image, of the VM's size. An existing disk is kept as it is.
	EnsureDisk(ctx context.Context, m Machine) error
	// EnsureSeed puts what the guest reads at its first start (name, keys, network, user data) where it finds it.
	EnsureSeed(ctx context.Context, m Machine) error
	// EnsureDefined makes the host know the VM without starting it. A VM that runs goes on running.
	EnsureDefined(ctx context.Context, m Machine) error
	// EnsureStarted makes a defined VM run. A VM that the host does not know is ErrNotDefined.
	EnsureStarted(ctx context.Context, vmID string) error
	// EnsureStopped asks the guest to power off and returns; Observe tells when it did. With force the power is cut, and
	// the VM is off when the call returns. A VM that is off or missing is stopped.
	EnsureStopped(ctx context.Context, vmID string, force bool) error
	// Reboot asks the guest to restart, or resets it with force. It is the one deed in the contract: called twice, it
	// reboots twice. A VM that does not run is ErrNotRunning.
	Reboot(ctx context.Context, vmID string, force bool) error
	// EnsureSize makes a defined VM have the machine's size: cores, memory, and disk, which only grows; a smaller one is a Fatal
	// error. What cannot be changed while the VM is on makes it ErrNeedsOff, and then nothing was changed.
	EnsureSize(ctx context.Context, m Machine) error
	// Size returns what the VM has now; nil where the host does not know it.
	Size(ctx context.Context, vmID string) (*apiv1.Resources, error)

	// EnsureSnapshot keeps what the VM's disk holds, under the snapshot's id. A snapshot of that id that is there is kept as it
	// is. A VM that is on is ErrNeedsOff, one that the host does not know ErrNotDefined.
	EnsureSnapshot(ctx context.Context, vmID string, s Snapshot) error
	// EnsureRestored makes the VM's disk hold what it held when the snapshot was taken, in a disk and on a VM of the machine's
	// size. Called again before the VM was started, it changes nothing. A VM that is on is ErrNeedsOff; a snapshot that is not
	// there is ErrNoSnapshot.
	EnsureRestored(ctx context.Context, m Machine, snapshotID string) error
	// EnsureNoSnapshot forgets a snapshot and frees its room. The VM may be on.
	EnsureNoSnapshot(ctx context.Context, vmID, snapshotID string) error
	// Snapshots returns the VM's snapshots, in the order of their ids; none where the host does not know the VM.
	Snapshots(ctx context.Context, vmID string) ([]Snapshot, error)

	// EnsureGone cuts the VM's power and removes its definition, disk with its snapshots and seed, in this order, so that a
	// call cut short leaves nothing that runs without a definition. Images stay.
	EnsureGone(ctx context.Context, vmID string) error

	// Observe returns how the VM is now. Its cost is a few round trips.
	Observe(ctx context.Context, vmID string) (Observation, error)
	// Address returns the address that the VM was last defined with: for a zone that has forgotten it. The zero value where
	// it has none, or the host does not know the VM or its address.
	Address(ctx context.Context, vmID string) (netip.Addr, error)
	// ObserveAll returns every VM of this driver on the host, in the order of their ids, in a number of round trips that
	// does not grow with the VMs.
	ObserveAll(ctx context.Context) ([]Observation, error)
	// Sample returns the host's own counters.
	Sample(ctx context.Context) (HostCounters, error)

	// Close ends the handle. VMs run on.
	Close() error
}

// Inventory is what a host has.
type Inventory struct {
	// Total is the real capacity before overcommit, with the operator's override applied.
	Total *apiv1.Resources
	// Version names the hypervisor and its version: "QEMU 7.2.22, libvirt 9.0.0".
	Version string
	// CertificateEnds is when the certificate ends by which the host is known; zero where it has none.
	CertificateEnds time.Time
}

// Snapshot is what a VM's disk held at one moment.
type Snapshot struct {
	// ID names it; Name is for people at the host.
	ID, Name string
	TakenAt  time.Time
}

// Image names the bits that a disk is based on.
type Image struct {
	// SHA256 of the file, lower-case hexadecimal.
	SHA256 string
	// Format as declared; never found out by looking at the bits. Unset means QCOW2.
	Format apiv1.Image_Format
}

// ImageOf returns the image of a VM.
func ImageOf(vm *apiv1.VM) Image {
	return Image{SHA256: vm.GetImageSha256(), Format: vm.GetImageFormat()}
}

// Capacity returns what was reported, with every number that the override sets put in its place.
func Capacity(reported, override *apiv1.Resources) *apiv1.Resources {
	pick := func(reported, override uint32) uint32 {
		if override != 0 {
			return override
		}
		return reported
	}
	return &apiv1.Resources{
		Cores:     pick(reported.GetCores(), override.GetCores()),
		MemoryMib: pick(reported.GetMemoryMib(), override.GetMemoryMib()),
		DiskGib:   pick(reported.GetDiskGib(), override.GetDiskGib()),
	}
}
