package state

import (
	"math"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"
	"zombiezen.com/go/sqlite"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// dayMicros is how long a day is. What happened within one is looked for on both sides of a time: while a clock was ahead, what
// happened was written down with times that are still to come.
const dayMicros = 24 * 3600 * 1_000_000

// Submitted returns how many requests of a requester were submitted within a day of a time.
func (tx *Tx) Submitted(requesterID string, at *timestamppb.Timestamp) (n int, err error) {
	now := Micros(at)
	err = tx.query("SELECT count(*) FROM requests WHERE requester_id=? AND counted_at>0 AND counted_at>? AND counted_at<?", func(s *sqlite.Stmt) error {
		n = s.ColumnInt(0)
		return nil
	}, requesterID, now-dayMicros, now+dayMicros)
	return n, err
}

// Let is what requests came to that policies let through without people.
type Let struct {
	Requests, Quantity uint64
	// Costs are what a month costs, by currency: at most the greatest number that there is.
	Costs map[string]uint64
}

// LetOf returns what of a requester was let through without people within a day of a time.
func (tx *Tx) LetOf(requesterID string, at *timestamppb.Timestamp) (Let, error) {
	return tx.let("requester_id", requesterID, at)
}

// LetIn returns what of a project was let through so.
func (tx *Tx) LetIn(projectID string, at *timestamppb.Timestamp) (Let, error) {
	return tx.let("project_id", projectID, at)
}

func (tx *Tx) let(column, id string, at *timestamppb.Timestamp) (Let, error) {
	now, out := Micros(at), Let{Costs: map[string]uint64{}}
	err := tx.query(`SELECT automatic_quantity, automatic_currency, automatic_cost FROM requests
		WHERE `+column+`=? AND automatic_at>0 AND automatic_at>? AND automatic_at<?`, func(s *sqlite.Stmt) error {
		out.add(uint64(s.ColumnInt64(0)), s.ColumnText(1), uint64(s.ColumnInt64(2)))
		return nil
	}, id, now-dayMicros, now+dayMicros)
	return out, err
}

// Count counts a request besides.
func (l *Let) Count(m *apiv1.Request) {
	l.add(uint64(request.Quantity(m)), m.GetMonthlyCost().GetCurrency(), costOf(m))
}

func (l *Let) add(quantity uint64, currency string, cost uint64) {
	l.Requests++
	l.Quantity += quantity
	if cost > 0 {
		l.Costs[currency] = min(l.Costs[currency], math.MaxUint64-cost) + cost
	}
}

// costOf is what a month of a request costs, in minor units; 0 where that is not known.
func costOf(m *apiv1.Request) uint64 {
	n, err := strconv.ParseUint(m.GetMonthlyCost().GetAmount(), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// FileBytes returns how much is kept of files of a requester, and of a project, beside those of one request.
func (tx *Tx) FileBytes(requesterID, projectID, but string) (of, in int64, err error) {
	for _, sum := range []struct {
		column, id string
		to         *int64
	}{{"requester_id", requesterID, &of}, {"project_id", projectID, &in}} {
		if err := tx.query("SELECT coalesce(sum(file_bytes), 0) FROM requests WHERE "+sum.column+"=? AND file_bytes>0 AND id<>?", func(s *sqlite.Stmt) error {
			*sum.to = s.ColumnInt64(0)
			return nil
		}, sum.id, but); err != nil {
			return 0, 0, err
		}
	}
	return of, in, nil
}

// KeptOf is how much is kept of a request's own files.
func (tx *Tx) KeptOf(m *apiv1.Request) int64 { return int64(fileBytes(m)) }

// fileBytes is how much is kept of a request's files.
func fileBytes(m *apiv1.Request) (n uint64) {
	for _, f := range m.GetFiles() {
		if f.GetDroppedAt() == nil {
			n += uint64(f.GetSize())
		}
	}
	return n
}

// filesSince is since when files are kept of a request of which nothing becomes any more, in microseconds since 1970; 0 where it has
// none, or where something may.
func filesSince(m *apiv1.Request) uint64 {
	if fileBytes(m) == 0 || open(m) || m.GetFulfilment() == apiv1.Request_EXECUTING {
		return 0
	}
	switch m.GetApproval() {
	case apiv1.Request_APPROVED, apiv1.Request_REJECTED, apiv1.Request_CANCELLED, apiv1.Request_EXPIRED:
	default:
		return 0 // it is being written
	}
	since := max(Micros(m.GetDecidedAt()), Micros(m.GetEndedAt()))
	if d := m.GetDecisions(); len(d) > 0 {
		since = max(since, Micros(d[len(d)-1].GetAt()))
	}
	return uint64(since)
}

// FilesToDrop returns requests of which nothing has become since before a time, in microseconds, and of which files are kept: at most
// limit, the oldest first.
func (tx *Tx) FilesToDrop(before int64, limit int) ([]*apiv1.Request, error) {
	t := tx.Requests
	return t.collect(t.spec.text.all+" WHERE files_since>0 AND files_since<? ORDER BY files_since, id"+atMost, before, limit)
}

// DropFiles drops the files of a request, and notes since when they are gone; their names and digests stay.
func (tx *Tx) DropFiles(m *apiv1.Request, at *timestamppb.Timestamp) error {
	for _, f := range m.GetFiles() {
		if f.GetDroppedAt() != nil {
			continue
		}
		f.DroppedAt = at
		if err := tx.DropFile(m.GetId(), f); err != nil {
			return err
		}
	}
	return tx.Requests.Put(m)
}

// DropFile drops the content of a file of a request; of the comment that it came with stays what m says.
func (tx *Tx) DropFile(requestID string, m *apiv1.Comment) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if err := tx.write("UPDATE comments SET crc=?, message=? WHERE request_id=? AND id=?", checksum(b), b, requestID, m.GetId()); err != nil {
		return err
	}
	return tx.write("DELETE FROM attachments WHERE request_id=? AND id=?", requestID, m.GetId())
}
