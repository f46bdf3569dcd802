package state

import (
	"zombiezen.com/go/sqlite"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func operations() *spec[*apiv1.Operation] {
	return &spec[*apiv1.Operation]{
		noun: "operation", plural: "operations", usual: "id desc", // ids are in the order of time
		zero:   func() *apiv1.Operation { return &apiv1.Operation{} },
		revise: func(m *apiv1.Operation, r string) { m.Revision = r },
		columns: []column[*apiv1.Operation]{
			text("kind", (*apiv1.Operation).GetKind).asFixed(),
			text("target_kind", func(m *apiv1.Operation) string { return m.GetTarget().GetKind() }).asFixed(),
			text("target_id", func(m *apiv1.Operation) string { return m.GetTarget().GetId() }).asFixed(),
			text("target", func(m *apiv1.Operation) string { return m.GetTarget().GetName() }).asFixed(),
			text("project", (*apiv1.Operation).GetProject).asFixed(),
			text("project_id", (*apiv1.Operation).GetProjectId).asFixed(),
			text("zone", (*apiv1.Operation).GetZone).asFixed(),
			text("zone_id", (*apiv1.Operation).GetZoneId).asFixed(),
			flag("done", (*apiv1.Operation).GetDone),
			flag("failed", func(m *apiv1.Operation) bool { return m.GetError() != nil }),
			number("progress", (*apiv1.Operation).GetProgress),
			text("created_by", (*apiv1.Operation).GetCreatedBy).asFixed(),
			moment("created_at", (*apiv1.Operation).GetCreatedAt).asFixed(),
			moment("deadline", (*apiv1.Operation).GetDeadline),
			moment("finished_at", (*apiv1.Operation).GetFinishedAt),
		},
		further: []string{"(target_id) WHERE done=0", "(deadline) WHERE done=0", "(finished_at) WHERE done=1"},
	}
}

// OpenOperations returns the operations on a noun that are not done, oldest first.
func (tx *Tx) OpenOperations(targetID string) ([]*apiv1.Operation, error) {
	t := tx.Operations
	return t.collect(t.spec.text.all+" WHERE done=0 AND target_id=? ORDER BY id", targetID)
}

// OperationsNow returns the operations that the command being carried out has written.
func (tx *Tx) OperationsNow() ([]*apiv1.Operation, error) {
	t := tx.Operations
	return t.collect(t.spec.text.all+" WHERE revision=? ORDER BY id", tx.meta.Revision)
}

// DueOperations returns up to limit open operations whose deadline is at or before the time in microseconds, earliest first.
func (tx *Tx) DueOperations(micros int64, limit int) ([]*apiv1.Operation, error) {
	t := tx.Operations
	return t.collect(t.spec.text.all+" WHERE done=0 AND deadline>0 AND deadline<=? ORDER BY deadline, id"+atMost, micros, limit)
}

// ForgetOperations removes up to limit operations that finished before the time in microseconds.
func (tx *Tx) ForgetOperations(before int64, limit int) error {
	return tx.forget("operations", "SELECT id FROM operations WHERE done=1 AND finished_at<? ORDER BY finished_at, id"+atMost, before, limit)
}

// forget deletes from a noun's table what a query selects.
func (tx *Tx) forget(table, ids string, args ...any) error {
	var found []string
	err := tx.query(ids, func(s *sqlite.Stmt) error {
		found = append(found, s.ColumnText(0))
		return nil
	}, args...)
	for _, id := range found {
		if err != nil {
			return err
		}
		err = tx.write("DELETE FROM "+table+" WHERE id=?", id)
	}
	return err
}

// collect returns all rows of a query over the noun's fields.
func (t Table[M]) collect(sql string, args ...any) (found []M, err error) {
	err = t.tx.query(sql, func(s *sqlite.Stmt) error {
		m, err := t.decode(s)
		found = append(found, m)
		return err
	}, args...)
	return found, err
}
