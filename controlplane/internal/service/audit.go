package service

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// exportPiece is how many entries a piece of an export has.
const exportPiece = 256

type auditService struct {
	apiv1.UnimplementedAuditServiceServer
	*Service
}

// ListAuditEntries returns what the caller may see of a log: who may read the record in a zone or a project, what is of
// that; who may read all that is of a zone, the whole of the logs that it has kept itself.
func (s auditService) ListAuditEntries(ctx context.Context, r *apiv1.ListAuditEntriesRequest) (*apiv1.ListAuditEntriesResponse, error) {
	out := &apiv1.ListAuditEntriesResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		scope, err := s.about(tx, r)
		if err != nil {
			return err
		}
		entries := s.entries()
		reach, err := entries.reach(ctx, tx, auditRead)
		if err != nil {
			return err
		}
		within := entries.bounds(ctx, reach, auditRead)
		if r.GetLog() != "" {
			l, err := zoneLog(tx, r.GetLog())
			if err != nil {
				return err
			}
			if readsLog(reach, l) {
				within = nil
			}
		}
		out.AuditEntries, out.NextPageToken, err = tx.Log(r.GetLog()).List(state.Query{
			Filter: r.GetFilter(), OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
		}, within)
		return err
	})
	return out, err
}

// about is the project and the zone of which entries are asked for: by id where there is one of the name, or an id was given, and else by
// the name as it was then, since the log also tells of what is gone.
func (s auditService) about(tx *state.Tx, r *apiv1.ListAuditEntriesRequest) (state.Scope, error) {
	scope := state.Scope{}
	err := narrowTo(s.projects, tx, r.GetProject(), scope)
	if err == nil {
		err = narrowTo(s.zones, tx, r.GetZone(), scope)
	}
	return scope, err
}

// narrowTo writes into a scope of entries the noun that they are to be of, whoever asks: they see what is in their reach, and no more.
func narrowTo[M state.Noun](n noun[M], tx *state.Tx, name string, scope state.Scope) error {
	if name == "" {
		return nil
	}
	m, err := n.within(tx, name, nil)
	switch {
	case err == nil:
		scope[n.kind+"_id"] = m.GetId()
	case !problem.Is(err, problem.NotFound):
		return err
	case name[0] >= '0' && name[0] <= '9': // an id, as no name begins
		scope[n.kind+"_id"] = name
	default:
		scope[n.kind] = name
	}
	return nil
}

// auditEntry is an entry as nouns are.
type auditEntry struct{ *apiv1.AuditEntry }

func (e auditEntry) GetId() string     { return e.GetSequence() }
func (auditEntry) GetRevision() string { return "" }

// entries say whose and where what they tell of is.
func (s auditService) entries() noun[auditEntry] {
	return noun[auditEntry]{Service: s.Service, kind: "audit", project: "project_id", zone: "zone_id"}
}

// auditRead is the permission to see what the record has of a place.
const auditRead = "audit.read"

// readsLog reports whether a reach has all in it that is of a zone, and so of the logs that it has kept itself.
func readsLog(reach rights.Reach, l state.ZoneLog) bool {
	return reach.Contains(rights.Place{ZoneID: l.GetZoneId()}, auditRead)
}

// whole refuses what is of the record as a whole to those who may see a part of it: what is signed has no parts.
func (s auditService) whole(ctx context.Context) error {
	err := s.everywhere(ctx)
	if problem.Is(err, problem.Forbidden) {
		err = problem.Newf(problem.Forbidden, "naru audit list shows what you may see of it. Ask an auditor of the federation for an export, or for a checkpoint.",
			"the audit log is signed, exported and verified as a whole, and %s may see a part of it", callOf(ctx).Principal.Actor)
	}
	return err
}

func (s auditService) GetAuditCheckpoint(ctx context.Context, _ *apiv1.GetAuditCheckpointRequest) (*apiv1.GetAuditCheckpointResponse, error) {
	if err := s.whole(ctx); err != nil {
		return nil, err
	}
	out := &apiv1.GetAuditCheckpointResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if out.Checkpoint, err = newestCheckpoint(tx); err != nil {
			return err
		}
		if out.Keys, err = auditKeys(tx); err != nil {
			return err
		}
		out.Witnesses, err = witnesses(tx, out.GetCheckpoint())
		return err
	})
	return out, err
}

// ListAuditLogs returns the logs of which the caller may see all: who may read the record in a zone, those that it has kept
// itself.
func (s auditService) ListAuditLogs(ctx context.Context, _ *apiv1.ListAuditLogsRequest) (*apiv1.ListAuditLogsResponse, error) {
	out := &apiv1.ListAuditLogsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		reach, err := s.entries().reach(ctx, tx, auditRead)
		if err != nil {
			return err
		}
		if reach.Everywhere() {
			own, err := ownLog(tx)
			if err != nil {
				return err
			}
			out.AuditLogs = append(out.AuditLogs, own)
		}
		logs, err := tx.ZoneLogs()
		for _, l := range logs {
			if readsLog(reach, l) {
				out.AuditLogs = append(out.AuditLogs, l.AuditLog)
			}
		}
		return err
	})
	return out, err
}

// ownLog is the control plane's own log, as it was signed last.
func ownLog(tx *state.Tx) (*apiv1.AuditLog, error) {
	own := &apiv1.AuditLog{}
	newest, err := tx.Checkpoint()
	if err == nil {
		own.Checkpoint = newest
	} else if !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	ring, err := tx.Keyring()
	if err != nil {
		return nil, err
	}
	if n := len(ring.GetAuditKeys()); n > 0 {
		own.Key = ring.GetAuditKeys()[n-1].GetPublicKey()
	}
	return own, nil
}

// zoneLog returns a log that a zone has kept itself, by its name.
func zoneLog(tx *state.Tx, name string) (state.ZoneLog, error) {
	l, err := tx.ZoneLog(name)
	if errors.Is(err, state.ErrNotFound) {
		detail := "there is no log " + strconv.Quote(name)
		err = problem.New(problem.NotFound, detail, "List those that there are: naru audit logs.").With("log", detail)
	}
	return l, err
}

// witnesses are the zones that countersign, each with how far it is behind a checkpoint.
func witnesses(tx *state.Tx, newest *apiv1.AuditCheckpoint) (all []*apiv1.AuditWitness, err error) {
	signed, err := strconv.ParseUint(newest.GetSize(), 10, 63)
	if err != nil {
		return nil, err
	}
	known, err := tx.Witnesses()
	if err != nil {
		return nil, err
	}
	for _, w := range known {
		size, err := strconv.ParseUint(w.GetSize(), 10, 63)
		if err != nil {
			return nil, err
		}
		zone, err := tx.Zones.Get(w.GetZoneId())
		if errors.Is(err, state.ErrNotFound) || err == nil && zone.GetState() == apiv1.Zone_RETIRED {
			continue // its keys are still those of what it has signed
		}
		if err != nil {
			return nil, err
		}
		w.Behind, w.Objection = strconv.FormatUint(signed-min(size, signed), 10), zone.GetAuditObjection()
		all = append(all, w.AuditWitness)
	}
	return all, nil
}

func newestCheckpoint(tx *state.Tx) (*apiv1.AuditCheckpoint, error) {
	c, err := tx.Checkpoint()
	if errors.Is(err, state.ErrNotFound) {
		err = problem.New(problem.WrongState, "no checkpoint of the audit log has been signed yet", "Wait a moment: the leader signs one every ten seconds.")
	}
	return c, err
}

// auditKeys are the public keys with which checkpoints are checked: the log's own, then those of zones.
func auditKeys(tx *state.Tx) (keys []string, err error) {
	ring, err := tx.Keyring()
	if err != nil {
		return nil, err
	}
	for _, k := range ring.GetAuditKeys() {
		keys = append(keys, k.GetPublicKey())
	}
	known, err := tx.Witnesses()
	for _, w := range known {
		keys = append(keys, w.GetKeys()...)
	}
	return keys, err
}

// lostCheckpoints are those that zones have countersigned and the log does not hold.
func lostCheckpoints(tx *state.Tx) (lost []string, err error) {
	known, err := tx.Witnesses()
	for _, w := range known {
		lost = append(lost, w.GetLost()...)
	}
	return lost, err
}

// ExportAudit sends what has been signed. Entries never change, so each piece is read on a snapshot of its own.
func (s auditService) ExportAudit(r *apiv1.ExportAuditRequest, stream grpc.ServerStreamingServer[apiv1.ExportAuditResponse]) error {
	ctx := stream.Context()
	if err := s.whole(ctx); err != nil {
		return err
	}
	e, from := &export{log: r.GetLog()}, uint64(0)
	var head *apiv1.AuditExport
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if err := e.begin(tx); err != nil {
			return err
		}
		if from, err = firstOf(r.GetFrom(), e.size); err != nil {
			return err
		}
		head, err = e.head(tx, from)
		return err
	})
	if err != nil {
		return err
	}
	if err := stream.Send(&apiv1.ExportAuditResponse{Export: head}); err != nil {
		return err
	}
	for from < e.size {
		var piece *apiv1.ExportAuditResponse
		err := s.view(ctx, func(tx *state.Tx) (err error) {
			piece, err = e.piece(tx, from)
			return err
		})
		if err != nil {
			return err
		}
		if len(piece.GetLeaves()) == 0 {
			return problem.New(problem.Unavailable, "this server's copy of the audit log ends before its newest checkpoint", "Ask again in a moment.")
		}
		if err := stream.Send(piece); err != nil {
			return err
		}
		from += uint64(len(piece.GetLeaves()))
	}
	return nil
}

// export is of a log what its newest checkpoint covers.
type export struct {
	// log is a zone's, by its name; empty: the control plane's own.
	log    string
	size   uint64
	newest *apiv1.AuditCheckpoint
	// key checks a zone's.
	key string
}

func (e *export) begin(tx *state.Tx) (err error) {
	if e.log == "" {
		e.newest, err = newestCheckpoint(tx)
	} else {
		var l state.ZoneLog
		l, err = zoneLog(tx, e.log)
		e.newest, e.key = l.GetCheckpoint(), l.GetKey()
		if err == nil && e.newest == nil {
			err = problem.Newf(problem.WrongState, "See why with: naru audit logs -o wide.", "of the log %s nothing was taken up", e.log)
		}
	}
	if err != nil {
		return err
	}
	e.size, err = strconv.ParseUint(e.newest.GetSize(), 10, 63)
	return err
}

// head says what the export from an entry on is.
func (e *export) head(tx *state.Tx, from uint64) (head *apiv1.AuditExport, err error) {
	head = &apiv1.AuditExport{From: strconv.FormatUint(from, 10), Count: strconv.FormatUint(e.size-from, 10)}
	if head.Before, err = tx.Log(e.log).Before(from); err != nil {
		return nil, err
	}
	if e.log != "" {
		head.Keys = []string{e.key}
		return head, nil
	}
	if head.Keys, err = auditKeys(tx); err != nil {
		return nil, err
	}
	head.Lost, err = lostCheckpoints(tx)
	return head, err
}

// piece is the next of the entries, with what was signed of them: of a zone's log its newest state.
func (e *export) piece(tx *state.Tx, from uint64) (*apiv1.ExportAuditResponse, error) {
	leaves, err := tx.Log(e.log).Leaves(from, int(min(exportPiece, e.size-from)))
	if err != nil {
		return nil, err
	}
	piece := &apiv1.ExportAuditResponse{}
	for _, l := range leaves {
		piece.Leaves, piece.Hashes = append(piece.Leaves, l.Leaf), append(piece.Hashes, l.Hash[:])
	}
	through := from + uint64(len(leaves))
	switch {
	case e.log == "":
		piece.Checkpoints, err = checkpointsWithin(tx, from, through)
	case through == e.size:
		piece.Checkpoints = []*apiv1.AuditCheckpoint{e.newest}
	}
	return piece, err
}

// firstOf reads from which entry on an export is asked for.
func firstOf(text string, size uint64) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	from, err := strconv.ParseUint(text, 10, 63)
	if err != nil || from >= size {
		detail := "entries that a checkpoint covers are 0 to " + strconv.FormatUint(size-1, 10)
		return 0, problem.New(problem.Invalid, "there is no entry "+strconv.Quote(text)+" to begin with: "+detail, "Name one of these, or none.").With("from", detail)
	}
	return from, nil
}

// checkpointsWithin returns the checkpoints of sizes above after, up to through.
func checkpointsWithin(tx *state.Tx, after, through uint64) ([]*apiv1.AuditCheckpoint, error) {
	all, err := tx.Checkpoints(after, exportPiece)
	if err != nil {
		return nil, err
	}
	for i, c := range all {
		if size, err := strconv.ParseUint(c.GetSize(), 10, 63); err != nil || size > through {
			return all[:i], err
		}
	}
	return all, nil
}
