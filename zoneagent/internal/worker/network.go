package worker

import (
	"net/netip"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// Network is the guest network that a cluster's VMs are plugged into. The zero value is the driver's default, where
// guests ask DHCP.
type Network struct {
	// Bridge on the hosts.
	Bridge string
	// CIDR of the network; its prefix length goes to the guests.
	CIDR        netip.Prefix
	Gateway     netip.Addr
	Nameservers []netip.Addr
}

// machineOf is all a driver needs to know of a VM. It has the size that it has, but where the wish is to resize it: what was
// refused before counts for nothing.
func machineOf(wanted, is *apiv1.VM, n Network) hypervisor.Machine {
	if a := is.GetActual(); a != nil && wanted.GetErrand().GetKind() != apiv1.VM_Errand_RESIZE && !proto.Equal(a, wanted.GetSize()) {
		wanted = proto.CloneOf(wanted)
		wanted.Size = a
	}
	m := hypervisor.Machine{VM: wanted, MAC: hypervisor.MACOf(wanted.GetId()), Bridge: n.Bridge}
	if a, err := netip.ParseAddr(is.GetAddress()); err == nil && n.CIDR.IsValid() {
		m.Address = netip.PrefixFrom(a, n.CIDR.Bits())
		m.Gateway, m.Nameservers = n.Gateway, n.Nameservers
	}
	return m
}
