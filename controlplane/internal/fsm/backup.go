package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// beginBackup notes where zones' journals stand. A backup is made of the state as it is after this command, so it has at least
// as much of them.
func (c *command) beginBackup(in *commandv1.Backup) (*commandv1.Result, error) {
	if in.GetId() == "" {
		return nil, invalid("a backup without id cannot begin")
	}
	return &commandv1.Result{}, c.tx.BeginBackup(in.GetId())
}

// confirmBackup notes that the newest backup is whole: what it has of zones' journals, they need not keep any more.
func (c *command) confirmBackup(in *commandv1.Backup) (*commandv1.Result, error) {
	id, revision, err := c.tx.UnconfirmedBackup()
	if err != nil && !missing(err) {
		return nil, err
	}
	if missing(err) || id != in.GetId() {
		return nil, problem.Newf(problem.Conflict, "Nothing is to be done: keep it, and confirm the newest one.",
			"backup %s is not the newest, or it is confirmed already", in.GetId())
	}
	if err := c.tx.ConfirmBackup(); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tell(apiv1.Event_INFO, "federation.backup", whereabouts{}, nil,
		"a backup holds everything up to revision "+state.RevisionText(c.tx.Meta().Epoch, revision)+"; zones no longer keep what it has of their journals")
}
