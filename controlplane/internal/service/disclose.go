package service

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// zoneBook is all zones, as their policies are.
type zoneBook struct {
	byID, byName map[string]*apiv1.Zone
}

// zonesNow returns all zones. They are shared and read-only.
func (s *Service) zonesNow(ctx context.Context) (*zoneBook, error) {
	book, age := s.zoneBooks.get("")
	if book != nil {
		return book, nil
	}
	err := s.view(ctx, func(tx *state.Tx) error {
		book = &zoneBook{byID: map[string]*apiv1.Zone{}, byName: map[string]*apiv1.Zone{}}
		for z, err := range tx.Zones.All(nil) {
			if err != nil {
				return err
			}
			book.byID[z.GetId()], book.byName[z.GetName()] = z, z
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.zoneBooks.put("", book, age)
	return book, nil
}

// spoken are the problems that say nothing but what the caller said, or what holds everywhere.
var spoken = []problem.Code{
	problem.Invalid, problem.Unauthenticated, problem.Forbidden, problem.NotFound, problem.TokenInvalid, problem.TokenExpired, problem.TokenUsed,
	problem.Revoked, problem.IdempotencyMismatch, problem.TooMany, problem.TooLarge, problem.Timeout, problem.Cancelled, problem.Gone, problem.Unsupported,
	problem.Unavailable, problem.Internal, problem.CertificateInvalid,
}

// Disclose takes out of an answer, or of a problem that stands in its place, what may not cross to the edge of a zone: the
// sender's duty, since a broker only lets through or refuses. A problem, in place of an answer or in one that names no zone, may
// tell of the zones that the call is about.
func (s *Service) Disclose(ctx context.Context, zoneID string, answer proto.Message) error {
	book, err := s.zonesNow(ctx)
	if err != nil {
		return err
	}
	at := book.byID[zoneID]
	everywhere := func(*apiv1.Zone) bool { return true }
	unplaced := func(p *apiv1.Problem) {
		about := func(z *apiv1.Zone) bool { return callOf(ctx).Asked.isAbout(book, z) }
		if problem.Code(p.GetCode()) == problem.QuotaExceeded { // which says what is used, of a quota that may be over all zones
			about = everywhere
		}
		if !slices.Contains(spoken, problem.Code(p.GetCode())) && !leastShown(book, at, about).All() {
			next := p.GetNext()
			rights.RedactProblem(p)
			p.Detail, p.Next = "why is not shown here: it may tell of a zone of which not everything is", "Ask in the control network, or at that zone's own edge."
			if p.GetPlain() != "" {
				p.Detail, p.Next = p.GetPlain(), next
			}
		}
	}
	rights.Redact(answer, func(zone string) rights.Shown {
		if zone == rights.Everywhere {
			return leastShown(book, at, everywhere)
		}
		return rights.Crosses(book.byName[zone], at)
	}, unplaced)
	return nil
}

// leastShown is what is shown at a zone's edge of every zone of those that count.
func leastShown(book *zoneBook, at *apiv1.Zone, counts func(*apiv1.Zone) bool) rights.Shown {
	least := rights.Shown{Names: true, Addresses: true, Figures: true}
	for _, z := range book.byName {
		if !counts(z) {
			continue
		}
		s := rights.Crosses(z, at)
		least = rights.Shown{Names: least.Names && s.Names, Addresses: least.Addresses && s.Addresses, Figures: least.Figures && s.Figures}
	}
	return least
}

// whollyShown returns the ids of the zones of which everything is shown at the edge of one: that one, and others whose policies let it cross.
func (s *Service) whollyShown(ctx context.Context, at string) (ids []string, err error) {
	book, err := s.zonesNow(ctx)
	if err != nil {
		return nil, err
	}
	for id, z := range book.byID {
		if rights.Crosses(z, book.byID[at]).All() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// withheld returns the columns by which nothing may be looked for at the edge that the call came through: they are not shown
// there of every zone that is asked about, and who could look for them would learn what they hold.
func (n noun[M]) withheld(ctx context.Context, scope state.Scope) ([]string, error) {
	call := callOf(ctx)
	if call.ViaZoneID == "" {
		return nil, nil
	}
	book, err := n.zonesNow(ctx)
	if err != nil {
		return nil, err
	}
	only := book.byName[scope[n.zone]]
	if only == nil {
		only = book.byID[scope[n.zone]]
	}
	shown := leastShown(book, book.byID[call.ViaZoneID], func(z *apiv1.Zone) bool { return only == nil || z == only })
	if shown.All() {
		return nil, nil
	}
	var none M
	return rights.Withheld(none.ProtoReflect().Descriptor(), shown), nil
}
