package upkeep

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// beginning is a server that leads before its federation has begun.
type beginning struct {
	now      atomic.Pointer[state.DB]
	looked   chan struct{}
	proposed chan *commandv1.Command
}

func (b *beginning) View(ctx context.Context, fn func(*state.Tx) error) error {
	err := b.now.Load().View(ctx, fn)
	select {
	case b.looked <- struct{}{}:
	default:
	}
	return err
}

func (b *beginning) Propose(_ context.Context, c *commandv1.Command) (*commandv1.Result, error) {
	if c.GetSetBuiltInRoles() != nil {
		b.proposed <- c
	}
	return &commandv1.Result{}, nil
}

func (b *beginning) Servers(context.Context) ([]*apiv1.Server, error) { return nil, nil }

// TestAFederationThatBeginsHasTheBuiltInRolesAtOnce, though its first server leads, and looks, before it has begun.
func TestAFederationThatBeginsHasTheBuiltInRolesAtOnce(t *testing.T) {
	empty, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{ServerID: "server-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = empty.Close() })
	b := &beginning{looked: make(chan struct{}, 1), proposed: make(chan *commandv1.Command, 16)}
	b.now.Store(empty)
	begun := servicetest.New(t).DB
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- New(Config{Reader: b, Proposer: b, Servers: b, Log: slog.New(slog.DiscardHandler), Now: time.Now}).Run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	for range 3 {
		<-b.looked
	}
	b.now.Store(begun)
	select {
	case c := <-b.proposed:
		if set := c.GetSetBuiltInRoles(); len(set.GetRoles()) != len(rights.BuiltIn()) || set.GetEdition() != rights.Edition {
			t.Errorf("the roles are %v", set)
		}
	case <-time.After(raiseEvery / 4):
		t.Fatal("a federation that has begun has no roles: nobody can be given any")
	}
}
