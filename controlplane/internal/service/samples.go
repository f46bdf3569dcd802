package service

import (
	"cmp"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// sample is what samples of hosts and of VMs have in common.
type sample interface {
	GetZone() string
	GetFreshness() apiv1.Freshness_Level
	GetSeenAt() *timestamppb.Timestamp
	GetCpuRatio() float64
	GetTime() *timestamppb.Timestamp
}

// origin is of what a sample is, by whose word: what one zone says of another's hosts and VMs counts for nothing.
type origin struct{ id, zone string }

// newest is the sample to show of each: of several, which servers that had the zone one after the other may give, the one that
// came last. What a server keeps of a zone that is at another one by now is not shown.
func newest[S sample](samples []S, id func(S) string, zones map[string]*apiv1.Zone) map[origin]S {
	out := make(map[origin]S, len(samples))
	for _, s := range samples {
		if s.GetFreshness() == apiv1.Freshness_STALE && !away(zones[s.GetZone()]) {
			continue
		}
		from := origin{id(s), s.GetZone()}
		if was, ok := out[from]; !ok || was.GetSeenAt().AsTime().Before(s.GetSeenAt().AsTime()) {
			out[from] = s
		}
	}
	return out
}

// away reports whether nothing comes from a zone now, though something came before.
func away(zone *apiv1.Zone) bool { return zone.GetFreshness() > apiv1.Freshness_LIVE }

// lastHeard is when a zone that is away was heard last, as far as it is known.
func lastHeard(zone *apiv1.Zone) *timestamppb.Timestamp {
	if away(zone) && zone.GetState() == apiv1.Zone_DISCONNECTED {
		return zone.GetStateChangedAt()
	}
	return nil
}

// zonesInto fills zones by name.
func zonesInto(tx *state.Tx, zones map[string]*apiv1.Zone) error {
	clear(zones)
	for z, err := range tx.Zones.All(nil) {
		if err != nil {
			return err
		}
		zones[z.GetName()] = z
	}
	return nil
}

// busier orders samples: live ones first, then those with figures, of these the busiest.
func busier[S sample](a, b S) int {
	return cmp.Or(cmp.Compare(max(a.GetFreshness(), apiv1.Freshness_LIVE), max(b.GetFreshness(), apiv1.Freshness_LIVE)),
		compareBool(b.GetTime() != nil, a.GetTime() != nil), cmp.Compare(b.GetCpuRatio(), a.GetCpuRatio()))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
