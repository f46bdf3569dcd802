package hypervisor

import (
	"crypto/sha256"
	"net"
	"net/netip"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Machine is all that a driver needs to know of a VM: what was asked for, and where the zone puts it in its network.
type Machine struct {
	// VM with id, name, size, image_sha256, image_format, ssh_keys and user_data.
	VM *apiv1.VM
	// MAC of its one network card; MACOf(VM.id) unless there is a reason.
	MAC string
	// Bridge on the host that the card is plugged into; empty means the driver's default.
	Bridge string
	// Address with the prefix of the guest network: 10.91.2.10/24. The zero value leaves the guest to DHCP.
	Address netip.Prefix
	// Gateway and Nameservers of the guest network; the zero value means none.
	Gateway     netip.Addr
	Nameservers []netip.Addr
}

// MACOf returns the network card address of a VM: locally administered, under QEMU's usual prefix 52:54:00's first
// byte, the other 40 bits from the id, so that every agent finds the same one without asking.
func MACOf(vmID string) string {
	sum := sha256.Sum256([]byte("naru mac " + vmID))
	return net.HardwareAddr{0x52, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
}

// ReadyMarker is the line that a guest prints on its serial console once its seed has been applied and it can be used.
func ReadyMarker(vmID string) string { return "naru-ready " + vmID }
