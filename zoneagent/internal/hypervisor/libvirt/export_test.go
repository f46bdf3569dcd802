package libvirt

import (
	"context"
	"net"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Intercept puts something between a handle and its libvirtd.
func Intercept(h hypervisor.Host, wrap func(net.Conn) net.Conn) {
	opened := h.(*host)
	dial := opened.dial
	opened.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
	opened.calls.dial = opened.dial
}
