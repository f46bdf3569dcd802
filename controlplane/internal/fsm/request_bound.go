package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/quota"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const (
	// How much is kept of files of one requester's requests, and of one project's: they lie in every server, snapshot and backup.
	maxFilesOf, maxFilesIn = 64 << 20, 256 << 20
	// keepFiles is how long a file is kept when nothing becomes of its request any more, in microseconds: 90 days.
	keepFiles = 90 * 24 * 3600 * 1_000_000
	// dropAtOnce bounds of how many requests one command drops the files, as the next goes on: 10 MB at most are taken out of the
	// state at once, and of a clock that was ahead for a while few files are lost.
	dropAtOnce = 5
	// How many requests a person, and how many a program, submits in 24 hours.
	maxSubmittedBy, maxSubmittedByProgram = 500, 20_000
)

// mayKeep refuses more of a request's files than are kept of its requester, and of its project.
func (c *command) mayKeep(m *apiv1.Request, more int) error {
	of, in, err := c.tx.FileBytes(m.GetRequesterId(), m.GetProjectId(), m.GetId())
	own := int64(more) + c.tx.KeptOf(m)
	next := func(of string) string {
		return "Take files away that nobody needs (naru request detach), or delete drafts: naru request list " + of + " --filter approval=draft. Those of people who have left " +
			"are deleted by whoever may ask in the project. Files are dropped 90 days after their request has ended. Or say where the file can be found."
	}
	switch {
	case err != nil, own == 0:
		return err
	case of+own > maxFilesOf:
		return problem.Newf(problem.TooLarge, next("--mine"), "the files of requests of %s would come to %d bytes, and %d are kept of one requester", m.GetRequester(), of+own, maxFilesOf)
	case in+own > maxFilesIn:
		return problem.Newf(problem.TooLarge, next("--project "+m.GetProject()), "the files of requests in project %s would come to %d bytes, and %d are kept of one project", m.GetProject(), in+own, maxFilesIn)
	}
	return nil
}

// dropFiles drops files of requests of which nothing has become for long. What was decided on stays: their names, sizes and digests.
func (c *command) dropFiles() error {
	all, err := c.tx.FilesToDrop(state.Micros(c.clock)-keepFiles, dropAtOnce)
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := c.tx.DropFiles(m, c.clock); err != nil {
			return err
		}
	}
	return nil
}

// maySubmitToday refuses a submission where its requester has made too many in 24 hours, and has it count as one of them.
func (c *command) maySubmitToday(m *apiv1.Request) error {
	requester, err := c.tx.Users.Get(m.GetRequesterId())
	if err != nil && !missing(err) {
		return err
	}
	most := maxSubmittedBy
	if requester.GetKind() == apiv1.User_SERVICE {
		most = maxSubmittedByProgram
	}
	n, err := c.tx.Submitted(m.GetRequesterId(), c.clock)
	if err != nil {
		return err
	}
	if n < most {
		m.CountedAt = c.clock
		return nil
	}
	return problem.Newf(problem.TooMany, "Submit it tomorrow; as a draft it is kept until then. Several VMs can be asked for in one request.",
		"%s has submitted %d requests in 24 hours, and no more are taken", m.GetRequester(), n)
}

// letThrough notes that a policy lets a request through without people, and what it has let through so in 24 hours. What a limit of the
// policy forbids by now is judged anew.
func (c *command) letThrough(m *apiv1.Request, policy *apiv1.ApprovalPolicy) error {
	with, over, err := quota.Daily(c.tx, policy.GetAutomatic(), m, c.clock)
	switch {
	case err != nil:
		return err
	case over != "":
		return problem.Newf(problem.Conflict, "Try again.", "policy %s lets no more through without people now: %s", m.GetPolicy(), over)
	case with != "":
		m.ApprovalReason = cut(m.GetApprovalReason() + "; " + with)
	}
	m.AutomaticAt = c.clock
	return nil
}
