package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// WithRun returns a machine whose commands are carried out by run.
func WithRun(db *state.DB, run func(*state.Tx, *commandv1.Command) (*commandv1.Result, error)) *Machine {
	return &Machine{db: db, run: run, writeAudit: (*state.Tx).AppendAudit}
}

// WithAudit puts write in the place of what writes entries of the audit log.
func (m *Machine) WithAudit(write func(*state.Tx, *apiv1.AuditEntry) error) *Machine {
	return &Machine{db: m.db, run: m.run, writeAudit: write}
}
