// Package libvirt drives hosts that run libvirt with QEMU, over its own protocol and nothing else: a host needs a
// libvirtd that listens, on a unix socket or on TLS, and a bridge for its guests. No agent, no shared folder, no shell.
//
// # Where things lie
//
// Two folder pools that the driver makes on the host, below Options.Folder:
//
//	disks/<sha256>.img, <sha256>.ok    a base image, and the mark that its bits were verified
//	disks/<vm id>.qcow2                a VM's disk, an overlay on its image
//	disks/<vm id>.iso                  its NoCloud seed
//	serial/<vm id>.log                 what its guest printed on the serial console since its last start
//
// # Images
//
// Bits are sent under their digest's name and checked on their way (see package diskimage); the mark is made only after
// the whole stream had the right digest and has been acknowledged. A start that was cut short is sent again over what
// lies there: the same bytes at the same places, so even an agent whose fence has passed cannot spoil what its successor
// sends. All formats are spelled out, in the overlay as in the domain: QEMU never guesses one.
//
// # The serial log, and how it is read
//
// Readiness is a line on the guest's serial console. libvirt's console stream (virDomainOpenConsole) is no way to find
// it: it has one reader at a time, and what was printed before it was opened, or while the agent was down, is lost. So
// QEMU logs the console into a file in a storage pool, and the driver reads the file's new end as a volume: its size by
// a plain call, its bytes by a download from where the last one ended. That works the same over a socket and over TLS,
// at any time, for any agent. The file begins with a page of zeros, because libvirt looks at what volumes begin with,
// and what a guest prints must not pass for a disk format; and it lies in a pool of its own. libvirt's usual log daemon
// (virtlogd) bounds its size.
//
// # The fence
//
// Every call over the wire waits for its answer or for the end of its context. A connection with an unanswered call is
// closed then: it may be dead, and whatever it still holds is cut off with it. Starting a guest is: define, look at the
// context, create. A create that was already sent when the fence passed can still happen; it starts nothing once
// EnsureGone, over another connection, has undefined the domain.
package libvirt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Options of the driver.
type Options struct {
	// Folder on the hosts under which disks and logs lie; empty is /var/lib/naru.
	Folder string
	// Bridge on the hosts for machines that name none.
	Bridge string
	// DiskCache is QEMU's cache mode of guests' disks; empty is "none", which wants a file system that knows O_DIRECT.
	DiskCache string
	// Certificates returns the client certificates for hosts over TLS, of which the first is shown that the host accepts. It
	// is asked at each connection, so that a renewed one is taken up.
	Certificates func() ([]tls.Certificate, error)
	// Roots returns the authorities that hosts' certificates must come from; asked at each connection.
	Roots  func() *x509.CertPool
	Logger *slog.Logger
	// Metrics to count in; nil counts for nobody.
	Metrics *Metrics
}

// Driver is the libvirt driver.
type Driver struct{ options Options }

var _ hypervisor.Driver = (*Driver)(nil)

// New returns the driver.
func New(options Options) *Driver {
	if options.Folder == "" {
		options.Folder = "/var/lib/naru"
	}
	if options.DiskCache == "" {
		options.DiskCache = "none"
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Metrics == nil {
		options.Metrics = NewMetrics(nil)
	}
	return &Driver{options: options}
}

// Open implements hypervisor.Driver.
func (d *Driver) Open(ctx context.Context, wanted *apiv1.Host) (hypervisor.Host, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	at, err := parseEndpoint(wanted.GetEndpoint())
	if err != nil {
		return nil, hypervisor.Fatal(fmt.Errorf("endpoint of host %s: %w", wanted.GetName(), err))
	}
	dial := at.dialer(d.options.Certificates, d.options.Roots)
	if dial == nil {
		return nil, hypervisor.Fatal(fmt.Errorf("endpoint of host %s: TLS needs a client certificate, and this agent has none", wanted.GetName()))
	}
	log := d.options.Logger.With("host", wanted.GetName())
	return &host{
		name:     wanted.GetName(),
		options:  d.options,
		override: wanted.GetCapacity(),
		log:      log,
		calls:    newConnection(dial, log, d.options.Metrics),
		dial:     dial,
		images:   newLatches(),
	}, nil
}
