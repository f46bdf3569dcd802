package state

import (
	"errors"

	"zombiezen.com/go/sqlite"

	"github.com/naru-project/naru/controlplane/internal/request"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func requests() *spec[*apiv1.Request] {
	return &spec[*apiv1.Request]{
		noun: "request", plural: "requests", named: true, usual: "created_at desc",
		zero:   func() *apiv1.Request { return &apiv1.Request{} },
		revise: func(m *apiv1.Request, r string) { m.Revision = r },
		charge: (*Tx).chargeRequest, underive: func(m *apiv1.Request) { m.Quotas = nil },
		columns: []column[*apiv1.Request]{
			text("name", (*apiv1.Request).GetName).asFixed(),
			enum("kind", (*apiv1.Request).GetKind),
			text("title", (*apiv1.Request).GetTitle),
			enum("intake", (*apiv1.Request).GetIntake).asFixed(),
			text("external_ref", (*apiv1.Request).GetExternalRef).asFixed(),
			text("requester", (*apiv1.Request).GetRequester).asFixed(),
			text("requester_id", (*apiv1.Request).GetRequesterId).asFixed(),
			text("on_behalf_of", (*apiv1.Request).GetOnBehalfOf),
			text("on_behalf_of_id", (*apiv1.Request).GetOnBehalfOfId),
			text("organization", (*apiv1.Request).GetOrganization),
			text("organization_id", (*apiv1.Request).GetOrganizationId),
			text("project", (*apiv1.Request).GetProject),
			text("project_id", (*apiv1.Request).GetProjectId),
			enum("role_cluster", (*apiv1.Request).GetRoleCluster),
			enum("change_type", (*apiv1.Request).GetChangeType),
			text("zone", (*apiv1.Request).GetZone),
			text("zone_id", (*apiv1.Request).GetZoneId),
			enum("grade", (*apiv1.Request).GetGrade),
			text("policy", (*apiv1.Request).GetPolicy),
			enum("authority", (*apiv1.Request).GetAuthority),
			enum("approval", (*apiv1.Request).GetApproval),
			enum("fulfilment", (*apiv1.Request).GetFulfilment),
			flag("reviewed_afterwards", (*apiv1.Request).GetReviewedAfterwards),
			flag("review_overdue", (*apiv1.Request).GetReviewOverdue),
			flag("asked", func(m *apiv1.Request) bool { return !request.Recorded(m) }).asFixed(),
			words("vm", vmsOf).tellsOf("parts.name"),
			flag("open", open).asHidden(),
			flag("deciding", func(m *apiv1.Request) bool { return dueOf(m) > 0 }).asHidden(),
			hidden("due", dueOf),
			moment("submitted_at", (*apiv1.Request).GetSubmittedAt),
			moment("decided_at", (*apiv1.Request).GetDecidedAt),
			moment("fulfilled_at", (*apiv1.Request).GetFulfilledAt),
			moment("created_at", (*apiv1.Request).GetCreatedAt).asFixed(),
			moment("counted_at", (*apiv1.Request).GetCountedAt).asHidden(),
			moment("automatic_at", (*apiv1.Request).GetAutomaticAt).asHidden(),
			hidden("automatic_quantity", func(m *apiv1.Request) uint64 { return uint64(request.Quantity(m)) }),
			text("automatic_currency", func(m *apiv1.Request) string { return m.GetMonthlyCost().GetCurrency() }).asHidden(),
			hidden("automatic_cost", costOf),
			hidden("file_bytes", fileBytes),
			hidden("files_since", filesSince),
		},
		// Records of what is done without a request are many times what is asked for: whoever reads their own, or of a place, or of a VM,
		// goes along an index.
		walks: []string{"requester_id", "on_behalf_of_id", "project_id", "organization_id", "zone_id"},
		further: []string{"(created_at, id, vm)", "(requester_id, external_ref) WHERE external_ref<>''", "(requester_id, approval)",
			"(requester_id, created_at, id, asked)", "(project_id, created_at, id)", "(on_behalf_of_id, created_at, id, asked) WHERE on_behalf_of_id<>''",
			"(project_id, approval)", "(created_at, id) WHERE asked=0", "(open, id) WHERE open=1", "(deciding, due, id) WHERE deciding=1", "(requester_id, counted_at) WHERE counted_at>0",
			"(requester_id, automatic_at, automatic_quantity, automatic_currency, automatic_cost) WHERE automatic_at>0",
			"(project_id, automatic_at, automatic_quantity, automatic_currency, automatic_cost) WHERE automatic_at>0",
			"(requester_id, file_bytes) WHERE file_bytes>0", "(project_id, file_bytes) WHERE file_bytes>0", "(files_since, id) WHERE files_since>0",
			"(organization_id, created_at, id) WHERE organization_id<>''", "(zone_id, created_at, id) WHERE zone_id<>''"},
	}
}

// vmsOf are the names and ids of the VMs that a request is about, as far as they are known.
func vmsOf(m *apiv1.Request) (out []string) {
	if !request.InZone(m) {
		return nil // its part is no VM
	}
	for _, p := range m.GetParts() {
		for _, of := range []string{p.GetName(), p.GetVmId()} {
			if of != "" {
				out = append(out, of)
			}
		}
	}
	return out
}

// DraftsOf returns what a requester has written and not submitted, the newest first, at most limit. It costs what it finds, however
// much they have asked for.
func (tx *Tx) DraftsOf(requesterID string, limit int) ([]*apiv1.Request, error) {
	t := tx.Requests
	return t.collect(t.spec.text.all+" WHERE requester_id=? AND approval=? ORDER BY id DESC"+atMost, requesterID, int(apiv1.Request_DRAFT), limit)
}

// ForgetRecords removes up to limit requests that are records of changes made without one, and from before the time in microseconds.
// What is still being done stays.
func (tx *Tx) ForgetRecords(before int64, limit int) error {
	const old = "SELECT id FROM requests WHERE asked=0 AND created_at<? AND fulfilment<>? ORDER BY created_at, id" + atMost
	executing := int(apiv1.Request_EXECUTING)
	if err := tx.write("DELETE FROM comments WHERE request_id IN ("+old+")", before, executing, limit); err != nil {
		return err
	}
	return tx.forget("requests", old, before, executing, limit)
}

// open reports whether something may still become of a request without anybody's word: a stage or a time is waited for, or it is
// to be carried out.
func open(m *apiv1.Request) bool {
	switch m.GetApproval() {
	case apiv1.Request_SUBMITTED, apiv1.Request_IN_REVIEW:
		return true
	case apiv1.Request_RETURNED:
		return m.GetDecideBy() != nil
	case apiv1.Request_APPROVED:
		for _, s := range m.GetStages() {
			if s.GetState() == apiv1.Stage_OPEN {
				return true
			}
		}
		return m.GetFulfilment() < apiv1.Request_EXECUTING || m.GetFulfilment() == apiv1.Request_FAILED && m.GetCarryOutBy() != nil
	}
	return false
}

// neverDue is later than whatever is due, in microseconds.
const neverDue = 100 * 366 * 24 * 3600 * 1_000_000

// dueOf is when the first of a request's open stages is due, in microseconds since 1970; what is never due comes after all that is,
// as it was submitted. 0: no stage is open.
func dueOf(m *apiv1.Request) (due uint64) {
	for _, s := range m.GetStages() {
		if s.GetState() != apiv1.Stage_OPEN {
			continue
		}
		at := uint64(Micros(m.GetSubmittedAt())) + neverDue
		if s.GetDueAt() != nil {
			at = uint64(Micros(s.GetDueAt()))
		}
		if due == 0 || at < due {
			due = at
		}
	}
	return due
}

func delegations() *spec[*apiv1.Delegation] {
	return &spec[*apiv1.Delegation]{
		noun: "delegation", plural: "delegations", usual: "ends_at desc",
		zero:   func() *apiv1.Delegation { return &apiv1.Delegation{} },
		revise: func(m *apiv1.Delegation, r string) { m.Revision = r },
		columns: []column[*apiv1.Delegation]{
			text("from_user", (*apiv1.Delegation).GetFromUser).asFixed(),
			text("from_user_id", (*apiv1.Delegation).GetFromUserId).asFixed(),
			text("to_user", (*apiv1.Delegation).GetToUser).asFixed(),
			text("to_user_id", (*apiv1.Delegation).GetToUserId).asFixed(),
			text("project", (*apiv1.Delegation).GetProject).asFixed(),
			text("project_id", (*apiv1.Delegation).GetProjectId).asFixed(),
			text("zone", (*apiv1.Delegation).GetZone).asFixed(),
			text("zone_id", (*apiv1.Delegation).GetZoneId).asFixed(),
			moment("starts_at", (*apiv1.Delegation).GetStartsAt).asFixed(),
			moment("ends_at", (*apiv1.Delegation).GetEndsAt).asFixed(),
			moment("created_at", (*apiv1.Delegation).GetCreatedAt).asFixed(),
		},
		further: []string{"(from_user_id)", "(to_user_id)"},
	}
}

// NextRequestNumber returns a number that no request has had.
func (tx *Tx) NextRequestNumber() (n int64, err error) {
	err = tx.first("SELECT last FROM request_numbers WHERE one=1", func(s *sqlite.Stmt) error {
		n = s.ColumnInt64(0)
		return nil
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	n++
	return n, tx.write("INSERT INTO request_numbers (one, last) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET last=excluded.last", n)
}

// RequestOf returns the request that a requester gave an external number. Errors: ErrNotFound.
func (tx *Tx) RequestOf(requesterID, externalRef string) (*apiv1.Request, error) {
	t := tx.Requests
	return t.one(t.spec.text.all+" WHERE requester_id=? AND external_ref=? AND external_ref<>'' ORDER BY id LIMIT 1", requesterID, externalRef)
}

// OpenRequests returns requests of which something may still become without anybody's word: at most limit, behind the id after.
func (tx *Tx) OpenRequests(after string, limit int) (out []*apiv1.Request, err error) {
	t := tx.Requests
	err = tx.query(t.spec.text.all+" WHERE open=1 AND id>? ORDER BY id"+atMost, func(s *sqlite.Stmt) error {
		m, err := t.decode(s)
		out = append(out, m)
		return err
	}, after, limit)
	return out, err
}

// Awaited is where a request stands among those that somebody decides on: what is due first stands first.
type Awaited struct {
	Due uint64
	ID  string
}

// AwaitedOf returns where a request stands.
func AwaitedOf(m *apiv1.Request) Awaited { return Awaited{dueOf(m), m.GetId()} }

// AwaitedRequests returns requests with a stage that is open, what is due first before the others: at most limit, behind the place
// after.
func (tx *Tx) AwaitedRequests(after Awaited, limit int) (out []*apiv1.Request, err error) {
	t := tx.Requests
	err = tx.query(t.spec.text.all+" WHERE deciding=1 AND (due, id) > (?, ?) ORDER BY due, id"+atMost, func(s *sqlite.Stmt) error {
		m, err := t.decode(s)
		out = append(out, m)
		return err
	}, int64(after.Due), after.ID, limit)
	return out, err
}

// Standing is how many requests are being written, and how many are asked for and not decided on.
type Standing struct{ Written, Asked int }

// RequestsOf counts what stands of a requester.
func (tx *Tx) RequestsOf(requesterID string) (Standing, error) {
	return tx.standing("requester_id", requesterID)
}

// RequestsIn counts what stands of a project.
func (tx *Tx) RequestsIn(projectID string) (Standing, error) {
	return tx.standing("project_id", projectID)
}

func (tx *Tx) standing(column, id string) (n Standing, err error) {
	err = tx.query("SELECT approval, count(*) FROM requests WHERE "+column+"=? AND approval IN (?, ?, ?, ?) GROUP BY approval", func(s *sqlite.Stmt) error {
		switch apiv1.Request_Approval(s.ColumnInt(0)) {
		case apiv1.Request_DRAFT, apiv1.Request_RETURNED:
			n.Written += s.ColumnInt(1)
		default:
			n.Asked += s.ColumnInt(1)
		}
		return nil
	}, id, int(apiv1.Request_DRAFT), int(apiv1.Request_RETURNED), int(apiv1.Request_SUBMITTED), int(apiv1.Request_IN_REVIEW))
	return n, err
}

// PutRequestWork notes which request an operation works for.
func (tx *Tx) PutRequestWork(operationID, requestID string) error {
	return tx.write("INSERT INTO request_work (operation_id, request_id) VALUES (?, ?)", operationID, requestID)
}

// RequestWork returns the id of the request that an operation works for. Errors: ErrNotFound.
func (tx *Tx) RequestWork(operationID string) (requestID string, err error) {
	err = tx.first("SELECT request_id FROM request_work WHERE operation_id=?", func(s *sqlite.Stmt) error {
		requestID = s.ColumnText(0)
		return nil
	}, operationID)
	return requestID, err
}

// ForgetRequestWork drops the note of an operation that has ended.
func (tx *Tx) ForgetRequestWork(operationID string) error {
	return tx.write("DELETE FROM request_work WHERE operation_id=?", operationID)
}

// PutComment keeps what was said of a request, with the file where there is one.
func (tx *Tx) PutComment(requestID string, m *apiv1.Comment, content []byte) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	tx.touch("requests")
	err = tx.write("INSERT INTO comments (request_id, id, crc, message) VALUES (?, ?, ?, ?)", requestID, m.GetId(), checksum(b), b)
	if err != nil || m.GetFile() == "" {
		return err
	}
	return tx.write("INSERT INTO attachments (request_id, id, crc, message) VALUES (?, ?, ?, ?)", requestID, m.GetId(), checksum(content), content)
}

// Comments returns what was said of a request, the oldest first: at most limit, behind the id after.
func (tx *Tx) Comments(requestID, after string, limit int) (out []*apiv1.Comment, err error) {
	err = tx.query("SELECT message, crc FROM comments WHERE request_id=? AND id>? ORDER BY id"+atMost, func(s *sqlite.Stmt) error {
		m := &apiv1.Comment{}
		out = append(out, m)
		return decodeInto(s, m, "comments")
	}, requestID, after, limit)
	return out, err
}

// Attachment returns a file of a request; without its content where that was dropped. Errors: ErrNotFound.
func (tx *Tx) Attachment(requestID, commentID string) (m *apiv1.Comment, content []byte, err error) {
	m = &apiv1.Comment{}
	err = tx.first("SELECT message, crc FROM comments WHERE request_id=? AND id=?", func(s *sqlite.Stmt) error {
		return decodeInto(s, m, "comments")
	}, requestID, commentID)
	if err != nil || m.GetDroppedAt() != nil {
		return m, nil, err
	}
	err = tx.first("SELECT message, crc FROM attachments WHERE request_id=? AND id=?", func(s *sqlite.Stmt) error {
		if content = columnBytes(s, 0); checksum(content) != s.ColumnInt64(1) {
			return ErrCorrupt
		}
		return nil
	}, requestID, commentID)
	return m, content, err
}

// ForgetComments drops what was said of a draft that is deleted.
func (tx *Tx) ForgetComments(requestID string) error {
	if err := tx.write("DELETE FROM attachments WHERE request_id=?", requestID); err != nil {
		return err
	}
	return tx.write("DELETE FROM comments WHERE request_id=?", requestID)
}

// DelegationsTo goes through the delegations to a user that hold at a time, in microseconds since 1970.
func (tx *Tx) DelegationsTo(userID string, at int64) (out []*apiv1.Delegation, err error) {
	t := tx.Delegations
	err = tx.query(t.spec.text.all+" WHERE to_user_id=? AND starts_at<=? AND ends_at>? ORDER BY id", func(s *sqlite.Stmt) error {
		m, err := t.decode(s)
		out = append(out, m)
		return err
	}, userID, at, at)
	return out, err
}
