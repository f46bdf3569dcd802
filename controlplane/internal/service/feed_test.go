package service_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
)

// counting counts reads of the state.
type counting struct {
	*state.DB
	views atomic.Int64
}

func (c *counting) View(ctx context.Context, fn func(*state.Tx) error) error {
	c.views.Add(1)
	return c.DB.View(ctx, fn)
}

// TestAChangeCostsAFewReads by the feeds, however many watch, and none while nothing changes.
func TestAChangeCostsAFewReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := servicetest.New(t)
		reader := &counting{DB: w.DB}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- service.New(service.Config{Reader: reader, Now: time.Now}).Run(ctx) }()
		synctest.Wait()
		before := reader.views.Load()
		project(t, w, "web")
		synctest.Wait()
		if n := reader.views.Load() - before; n < 1 || n > 2 {
			t.Errorf("one change was read %d times", n)
		}
		cancel()
		<-ended
	})
}
