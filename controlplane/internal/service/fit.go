package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/intake"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// answer says whether there would be room for something now. It may have to wait for the picture of hosts, so no snapshot may be held
// meanwhile.
type answer func(context.Context) *apiv1.Fit

// told is an answer for which no host has to be looked at; why is nil where it is yes.
func told(is apiv1.Fit_Answer, why error) answer {
	f := &apiv1.Fit{Answer: is}
	if why != nil {
		f.Problem = problem.Of(why)
	}
	return func(context.Context) *apiv1.Fit { return f }
}

// looked is the answer of the picture of hosts, with what clusters have free where it is yes.
func looked(look func(context.Context) ([]*apiv1.ClusterRoom, error)) answer {
	return func(ctx context.Context) *apiv1.Fit {
		switch clusters, err := look(ctx); {
		case err == nil:
			return &apiv1.Fit{Answer: apiv1.Fit_YES, Clusters: clusters}
		case problem.Is(err, problem.NoHostFits):
			return &apiv1.Fit{Answer: apiv1.Fit_NO, Problem: problem.Of(err)}
		default:
			return &apiv1.Fit{Answer: apiv1.Fit_NOT_KNOWN, Problem: problem.Of(err)}
		}
	}
}

// rooms are answers of the picture of hosts to what requests ask for, so that whoever looks again has nothing placed again. Safe for
// concurrent use.
type rooms struct {
	mu      sync.Mutex
	picture uint64 // of which they are
	known   map[room]*apiv1.Fit
}

// room is what a request asks for as it stands: so many of its parts.
type room struct {
	request, revision string
	parts             int
}

// maxRooms bounds what is kept.
const maxRooms = 1024

// once returns what is known of a picture that holds everything up to the revision after, or looks at it. What nobody has written down
// yet has no revision, and is looked at each time.
func (s *Service) once(what room, after uint64, look answer) answer {
	return func(ctx context.Context) *apiv1.Fit {
		picture, err := s.Chooser.Picture(ctx, after)
		if err != nil {
			return told(apiv1.Fit_NOT_KNOWN, err)(ctx)
		}
		if f := s.rooms.get(what, picture); f != nil {
			return f
		}
		f := look(ctx)
		if what.revision != "" && f.GetAnswer() != apiv1.Fit_NOT_KNOWN {
			s.rooms.put(what, picture, f)
		}
		return f
	}
}

func (k *rooms) get(what room, picture uint64) *apiv1.Fit {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.picture != picture {
		return nil
	}
	return proto.CloneOf(k.known[what])
}

func (k *rooms) put(what room, picture uint64, f *apiv1.Fit) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.picture > picture {
		return // there is a newer one meanwhile
	}
	if k.picture < picture || len(k.known) >= maxRooms {
		k.picture, k.known = picture, map[room]*apiv1.Fit{}
	}
	k.known[what] = proto.CloneOf(f)
}

// fits returns the answer for all of a request that has not begun, but for what room is kept for already; nil where it takes none. The
// request is described.
func (s requestService) fits(tx *state.Tx, m *apiv1.Request) (answer, error) {
	if !request.TakesRoom(m) {
		return nil, nil
	}
	open := slices.DeleteFunc(slices.Clone(m.GetParts()), func(p *apiv1.Part) bool {
		return slices.ContainsFunc(m.GetHolds(), func(h *apiv1.Reservation) bool {
			return h.GetId() == p.GetReservation() && h.GetState() == apiv1.Reservation_HELD && s.Now().Before(h.GetHoldUntil().AsTime())
		})
	})
	if len(open) == 0 {
		return told(apiv1.Fit_YES, nil), nil
	}
	zone, err := tx.Zones.Get(m.GetZoneId())
	if errors.Is(err, state.ErrNotFound) {
		return told(apiv1.Fit_NO, problem.Newf(problem.ZoneUnavailable, "Ask for it in another zone.", "zone %s is gone", m.GetZone())), nil
	}
	if err != nil {
		return nil, err
	}
	making := m.GetSpecification().GetCreate() != nil
	if err := takesVMs(zone); making && err != nil {
		return told(apiv1.Fit_NO, err), nil
	}
	if zone.GetFreshness() != apiv1.Freshness_LIVE {
		return told(apiv1.Fit_NOT_KNOWN, outOfReach(zone)), nil
	}
	after, what := tx.Meta().Revision, room{m.GetId(), m.GetRevision(), len(open)}
	if making {
		vms, err := toMake(tx, m, open)
		var refused *problem.Error
		if errors.As(err, &refused) {
			return told(apiv1.Fit_NOT_KNOWN, refused), nil
		}
		if err != nil {
			return nil, err
		}
		names := map[string]string{}
		for c, err := range tx.Clusters.All(state.Scope{"zone_id": zone.GetId()}) {
			if err != nil {
				return nil, err
			}
			names[c.GetId()] = c.GetName()
		}
		return s.once(what, after, looked(func(ctx context.Context) (all []*apiv1.ClusterRoom, err error) {
			ids, err := s.Chooser.ChooseAll(ctx, vms, after)
			for i, id := range ids {
				all = s.takes(all, id, names[id], vms[i].GetSize())
			}
			return all, err
		})), nil
	}
	vm, err := tx.VMs.Get(open[0].GetVmId())
	if errors.Is(err, state.ErrNotFound) {
		return told(apiv1.Fit_NO, problem.Newf(problem.NotFound, "Withdraw the request.", "VM %s is gone", open[0].GetName())), nil
	}
	if err != nil {
		return nil, err
	}
	more := request.Growth(vm.GetSize(), m.GetSpecification().GetResize().GetSize())
	vm.Size = m.GetSpecification().GetResize().GetSize()
	return s.once(what, after, looked(func(ctx context.Context) ([]*apiv1.ClusterRoom, error) {
		return s.takes(nil, vm.GetClusterId(), vm.GetCluster(), more), s.Chooser.Resize(ctx, vm, after)
	})), nil
}

// takes takes so much of what is left of a cluster, which is what it has free where nothing was taken of it yet.
func (s *Service) takes(all []*apiv1.ClusterRoom, id, name string, size *apiv1.Resources) []*apiv1.ClusterRoom {
	i := slices.IndexFunc(all, func(r *apiv1.ClusterRoom) bool { return r.GetCluster() == name })
	if i < 0 {
		i = len(all)
		free := s.Chooser.Free(id)
		all = append(all, &apiv1.ClusterRoom{Cluster: name, Free: free, Left: proto.CloneOf(free)})
	}
	left := all[i].Left
	left.Cores -= min(left.GetCores(), size.GetCores())
	left.MemoryMib -= min(left.GetMemoryMib(), size.GetMemoryMib())
	left.DiskGib -= min(left.GetDiskGib(), size.GetDiskGib())
	return all
}

// toMake are VMs of a request, as far as it matters where they would go.
func toMake(tx *state.Tx, m *apiv1.Request, parts []*apiv1.Part) ([]*apiv1.VM, error) {
	all, err := intake.VM(tx, m)
	if err != nil {
		return nil, err
	}
	all.UserData, all.SshKeys = "", nil
	vms := make([]*apiv1.VM, len(parts))
	for i, p := range parts {
		vms[i] = proto.CloneOf(all)
		vms[i].Id, vms[i].Name = p.GetVmId(), p.GetName()
	}
	return vms, nil
}

// outOfReach says since when nothing is known of a zone.
func outOfReach(zone *apiv1.Zone) error {
	said := "is out of reach"
	if since := lastHeard(zone); since != nil {
		said = "is cut off since " + since.AsTime().UTC().Format(time.RFC3339)
	}
	return problem.Newf(problem.ZoneUnavailable, "Look again when it is back, or decide without knowing: what is approved waits for room.",
		"zone %s %s", zone.GetName(), said)
}
