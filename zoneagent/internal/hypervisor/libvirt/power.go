package libvirt

import (
	"context"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// state returns libvirt's state of a domain.
func (h *host) state(ctx context.Context, domain rpc.Domain) (rpc.DomainState, error) {
	state, err := call(ctx, h, "domain_get_state", func(l *rpc.Libvirt) (rpc.DomainState, error) {
		state, _, err := l.DomainGetState(domain, 0)
		return rpc.DomainState(state), err
	})
	return state, wrap(err, "asking for the state of %s", domain.Name)
}

// EnsureStarted implements hypervisor.Host.
func (h *host) EnsureStarted(ctx context.Context, vmID string) error {
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return err
	}
	if domain == nil {
		return fmt.Errorf("starting vm %s: %w", vmID, hypervisor.ErrNotDefined)
	}
	state, err := h.state(ctx, *domain)
	if err != nil {
		return err
	}
	switch state {
	case rpc.DomainRunning, rpc.DomainBlocked:
		return nil
	case rpc.DomainPaused:
		return wrap(h.do(ctx, "domain_resume", func(l *rpc.Libvirt) error { return l.DomainResume(*domain) }), "resuming vm %s", vmID)
	case rpc.DomainPmsuspended:
		return wrap(h.do(ctx, "domain_pm_wakeup", func(l *rpc.Libvirt) error { return l.DomainPmWakeup(*domain, 0) }), "waking vm %s", vmID)
	case rpc.DomainShutdown:
		return fmt.Errorf("starting vm %s: it is shutting down", vmID)
	}
	if err := h.freshLog(ctx, vmID); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the fence: nothing runs that is started behind it
		return err
	}
	err = h.do(ctx, "domain_create", func(l *rpc.Libvirt) error {
		_, err := l.DomainCreateWithFlags(*domain, 0)
		return err
	})
	if is(err, rpc.ErrOperationInvalid) { // somebody else's start came first, if it runs
		if state, stateErr := h.state(ctx, *domain); stateErr == nil && state == rpc.DomainRunning {
			return nil
		}
	}
	return wrap(err, "starting vm %s", vmID)
}

// EnsureStopped implements hypervisor.Host.
func (h *host) EnsureStopped(ctx context.Context, vmID string, force bool) error {
	domain, err := h.domain(ctx, vmID)
	if err != nil || domain == nil {
		return err
	}
	if force {
		return h.cut(ctx, *domain)
	}
	err = h.do(ctx, "domain_shutdown", func(l *rpc.Libvirt) error {
		return l.DomainShutdownFlags(*domain, rpc.DomainShutdownAcpiPowerBtn)
	})
	if is(err, rpc.ErrOperationInvalid) || is(err, rpc.ErrNoDomain) { // it is off
		return nil
	}
	return wrap(err, "asking vm %s to power off", vmID)
}

// cut takes the power from a domain that may be off.
func (h *host) cut(ctx context.Context, domain rpc.Domain) error {
	err := h.do(ctx, "domain_destroy", func(l *rpc.Libvirt) error { return l.DomainDestroyFlags(domain, 0) })
	if is(err, rpc.ErrOperationInvalid) || is(err, rpc.ErrNoDomain) {
		return nil
	}
	return wrap(err, "cutting the power of %s", domain.Name)
}

// Reboot implements hypervisor.Host.
func (h *host) Reboot(ctx context.Context, vmID string, force bool) error {
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return err
	}
	if domain == nil {
		return fmt.Errorf("rebooting vm %s: %w", vmID, hypervisor.ErrNotDefined)
	}
	if force {
		err = h.do(ctx, "domain_reset", func(l *rpc.Libvirt) error { return l.DomainReset(*domain, 0) })
	} else {
		err = h.do(ctx, "domain_reboot", func(l *rpc.Libvirt) error { return l.DomainReboot(*domain, rpc.DomainRebootAcpiPowerBtn) })
	}
	if is(err, rpc.ErrOperationInvalid) {
		return fmt.Errorf("rebooting vm %s: %w", vmID, hypervisor.ErrNotRunning)
	}
	return wrap(err, "rebooting vm %s", vmID)
}

// EnsureGone implements hypervisor.Host.
func (h *host) EnsureGone(ctx context.Context, vmID string) error {
	domain, err := h.domain(ctx, vmID)
	if err != nil {
		return err
	}
	if domain != nil {
		if err := h.cut(ctx, *domain); err != nil {
			return err
		}
		err := h.do(ctx, "domain_undefine", func(l *rpc.Libvirt) error {
			return l.DomainUndefineFlags(*domain, rpc.DomainUndefineManagedSave|rpc.DomainUndefineSnapshotsMetadata|
				rpc.DomainUndefineCheckpointsMetadata|rpc.DomainUndefineNvram)
		})
		if err != nil && !is(err, rpc.ErrNoDomain) {
			return wrap(err, "undefining vm %s", vmID)
		}
	}
	for _, volume := range []struct{ pool, name string }{
		{disksPool, diskName(vmID)}, {disksPool, seedName(vmID)}, {serialPool, logName(vmID)},
	} {
		pool, err := h.pool(ctx, volume.pool)
		if err != nil {
			return err
		}
		if err := h.remove(ctx, pool, volume.name); err != nil {
			return err
		}
	}
	return nil
}
