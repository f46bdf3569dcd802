package service

import (
	"context"
	"errors"
	"math/bits"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc"

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

func (s auditService) ListAuditEntries(ctx context.Context, r *apiv1.ListAuditEntriesRequest) (*apiv1.ListAuditEntriesResponse, error) {
	if err := s.everywhere(ctx); err != nil {
		return nil, err
	}
	out := &apiv1.ListAuditEntriesResponse{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		// By name as it was then: the log also tells of what is gone.
		scope := state.Scope{}
		if r.GetProject() != "" {
			scope["project"] = r.GetProject()
		}
		if r.GetZone() != "" {
			scope["zone"] = r.GetZone()
		}
		out.AuditEntries, out.NextPageToken, err = tx.ListAudit(state.Query{
			Filter: r.GetFilter(), OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
		})
		return err
	})
	return out, err
}

func (s auditService) GetAuditCheckpoint(ctx context.Context, _ *apiv1.GetAuditCheckpointRequest) (*apiv1.GetAuditCheckpointResponse, error) {
	if err := s.everywhere(ctx); err != nil {
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

// ListAuditLogs returns the logs that there are.
func (s auditService) ListAuditLogs(ctx context.Context, _ *apiv1.ListAuditLogsRequest) (*apiv1.ListAuditLogsResponse, error) {
	if err := s.everywhere(ctx); err != nil {
		return nil, err
	}
	own := &apiv1.AuditLog{}
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if own.Checkpoint, err = newestCheckpoint(tx); err != nil {
			return err
		}
		ring, err := tx.Keyring()
		if n := len(ring.GetAuditKeys()); n > 0 {
			own.Key = ring.GetAuditKeys()[n-1].GetPublicKey()
		}
		return err
	})
	return &apiv1.ListAuditLogsResponse{AuditLogs: []*apiv1.AuditLog{own}}, err
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
	if err := s.everywhere(ctx); err != nil {
		return err
	}
	var from, size uint64
	head := &apiv1.AuditExport{}
	err := s.read(ctx, func(tx *state.Tx) error {
		newest, err := newestCheckpoint(tx)
		if err != nil {
			return err
		}
		if size, err = strconv.ParseUint(newest.GetSize(), 10, 63); err != nil {
			return err
		}
		if from, err = firstOf(r.GetFrom(), size); err != nil {
			return err
		}
		head.From, head.Count = strconv.FormatUint(from, 10), strconv.FormatUint(size-from, 10)
		if head.Before, err = before(tx, from); err != nil {
			return err
		}
		if head.Keys, err = auditKeys(tx); err != nil {
			return err
		}
		head.Lost, err = lostCheckpoints(tx)
		return err
	})
	if err != nil {
		return err
	}
	if err := stream.Send(&apiv1.ExportAuditResponse{Export: head}); err != nil {
		return err
	}
	for from < size {
		piece := &apiv1.ExportAuditResponse{}
		err := s.view(ctx, func(tx *state.Tx) error {
			piece.Leaves, piece.Hashes = nil, nil
			leaves, err := tx.AuditLeaves(from, int(min(exportPiece, size-from)))
			if err != nil {
				return err
			}
			for _, l := range leaves {
				piece.Leaves, piece.Hashes = append(piece.Leaves, l.Leaf), append(piece.Hashes, l.Hash[:])
			}
			piece.Checkpoints, err = checkpointsWithin(tx, from, from+uint64(len(leaves)))
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

// before returns the roots of the whole trees that the first size entries make up, the largest first.
func before(tx *state.Tx, size uint64) (roots [][]byte, err error) {
	at := uint64(0)
	for left := size; left > 0; {
		level := 63 - bits.LeadingZeros64(left)
		read, err := tx.AuditHashes().ReadHashes([]int64{tlog.StoredHashIndex(level, int64(at>>level))})
		if err != nil {
			return nil, err
		}
		roots = append(roots, read[0][:])
		at, left = at+1<<level, left-1<<level
	}
	return roots, nil
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
