package fsm

import (
	"github.com/naru-project/naru/controlplane/internal/state"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// WithRun returns a machine whose commands are carried out by run.
func WithRun(db *state.DB, run func(*state.Tx, *commandv1.Command) (*commandv1.Result, error)) *Machine {
	return &Machine{db, run}
}
