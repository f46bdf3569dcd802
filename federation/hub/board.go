package hub

import (
	"sync"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Board is where a server publishes its status, for all its clients at once. The latest word counts; nobody waits for
// a reader. Safe for concurrent use; the zero value says nothing yet.
type Board struct {
	mu      sync.Mutex
	status  *linkv1.ServerStatus
	changed chan struct{}
}

// Publish replaces the status, which is not changed afterwards.
func (b *Board) Publish(status *linkv1.ServerStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = status
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// read returns the status (nil before the first), and a channel that is closed when there is another.
func (b *Board) read() (*linkv1.ServerStatus, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.status, b.changed
}
