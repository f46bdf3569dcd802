package fsm

import (
	"strconv"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// maxAuditKeys bounds how often the key that signs checkpoints can be replaced.
const maxAuditKeys = 64

// recordAudit checks what a server says of something that no command did; record then writes it.
func (c *command) recordAudit(in *commandv1.RecordAudit) (*commandv1.Result, error) {
	e := in.GetEntry()
	if e.GetAction() == "" || e.GetOutcome() == apiv1.AuditEntry_OUTCOME_UNSPECIFIED {
		return nil, invalid("an entry of the audit log has an action and an outcome")
	}
	return &commandv1.Result{}, nil
}

// signAudit stores a checkpoint, if the log was as it says.
func (c *command) signAudit(in *commandv1.SignAudit) (*commandv1.Result, error) {
	checkpoint := in.GetCheckpoint()
	size, err := strconv.ParseUint(checkpoint.GetSize(), 10, 63)
	if err != nil || size == 0 || checkpoint.GetNote() == "" || checkpoint.GetTime() == nil {
		return nil, invalid("a checkpoint has a size, a time and a note")
	}
	has, err := c.tx.AuditSize()
	if err != nil {
		return nil, err
	}
	if size > has {
		return nil, problem.Newf(problem.Conflict, "Read the log again.", "the audit log has %d entries, and the checkpoint is of %d", has, size)
	}
	root, err := c.tx.AuditRoot(size)
	if err != nil {
		return nil, err
	}
	if string(root[:]) != string(checkpoint.GetRoot()) {
		return nil, problem.Newf(problem.Conflict, "Read the log again.", "the root of the audit log at size %d is another one", size)
	}
	return &commandv1.Result{}, c.tx.PutCheckpoint(size, checkpoint)
}

// addAuditKey makes a key the one that signs checkpoints, if nobody else has made one meanwhile.
func (c *command) addAuditKey(in *commandv1.AddAuditKey) (*commandv1.Result, error) {
	ring, err := c.tx.Keyring()
	if err != nil {
		return nil, err
	}
	newest := ""
	if n := len(ring.GetAuditKeys()); n > 0 {
		newest = ring.GetAuditKeys()[n-1].GetPublicKey()
	}
	switch {
	case in.GetKey().GetPublicKey() == "" || len(in.GetKey().GetSealedKey()) == 0:
		return nil, invalid("a key of the audit log has a public key and a sealed one")
	case newest != in.GetAfter():
		return nil, problem.New(problem.Conflict, "the audit log has another newest key than was read", "Look at the keyring again.")
	case len(ring.GetAuditKeys()) >= maxAuditKeys:
		return nil, problem.New(problem.WrongState, "the audit log has had as many keys as are kept", "Look why so many are made.")
	}
	ring.AuditKeys = append(ring.AuditKeys, in.GetKey())
	if err := c.tx.PutKeyring(ring); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tell(apiv1.Event_WARNING, "audit.key", "", "", nil,
		"checkpoints of the audit log are signed with "+in.GetKey().GetPublicKey()+" from now on; who verifies exports keeps that key")
}
