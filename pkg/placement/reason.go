package placement

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Reason is why a host is out for a VM. A host has one reason: the first that holds, in this order.
type Reason uint8

const (
	Fits Reason = iota
	// The operator's word.
	Cordoned
	Draining
	Maintenance
	// Its health.
	Unseen // it has not reported yet
	Suspect
	Checking
	Degraded
	Fencing
	Fenced
	Down
	// For this VM only.
	Excluded
	Apart   // it has a member of a group that keeps the VM off
	Strayed // the VM must stand with a group that is elsewhere
	Lacks   // room
)

// phrases say a reason of one host, and of several.
var phrases = [...][2]string{
	Fits:        {"fits", "fit"},
	Cordoned:    {"is cordoned", "are cordoned"},
	Draining:    {"is draining", "are draining"},
	Maintenance: {"is in maintenance", "are in maintenance"},
	Unseen:      {"has not reported yet", "have not reported yet"},
	Suspect:     {"is suspect", "are suspect"},
	Checking:    {"is being checked", "are being checked"},
	Degraded:    {"is degraded", "are degraded"},
	Fencing:     {"is being fenced", "are being fenced"},
	Fenced:      {"is fenced", "are fenced"},
	Down:        {"is down", "are down"},
	Excluded:    {"is excluded", "are excluded"},
	Apart:       {"has a VM of affinity group", "have a VM of affinity group"},
	Strayed:     {"has no VM of affinity group", "have no VM of affinity group"},
	Lacks:       {"lacks", "lack"},
}

var adminReasons = map[apiv1.Host_AdminState]Reason{
	apiv1.Host_CORDONED:    Cordoned,
	apiv1.Host_DRAINING:    Draining,
	apiv1.Host_MAINTENANCE: Maintenance,
}

var healthReasons = map[apiv1.Host_Health]Reason{
	apiv1.Host_HEALTH_UNSPECIFIED: Unseen,
	apiv1.Host_SUSPECT:            Suspect,
	apiv1.Host_CHECKING:           Checking,
	apiv1.Host_DEGRADED:           Degraded,
	apiv1.Host_FENCING:            Fencing,
	apiv1.Host_FENCED:             Fenced,
	apiv1.Host_DOWN:               Down,
}

// closedBy returns why a host takes no VM at all, or Fits.
func closedBy(h *apiv1.Host) Reason {
	if h.GetLoss() != nil {
		return Fenced
	}
	if r, ok := adminReasons[h.GetAdminState()]; ok {
		return r
	}
	return healthReasons[h.GetHealth()]
}

// Lacking is a set of resources.
type Lacking uint8

const (
	LacksCores Lacking = 1 << iota
	LacksMemory
	LacksDisk
)

func lacking(free, ask *vector) (l Lacking) {
	for d := range dimensions {
		if ask[d] > free[d] {
			l |= 1 << d
		}
	}
	return l
}
