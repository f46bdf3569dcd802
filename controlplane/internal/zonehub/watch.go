package zonehub

import (
	"sync"

	"github.com/naru-project/naru/controlplane/internal/state"
)

// lazyWatch is a watch that begins when it is first asked: a session that never opens leaves none behind.
type lazyWatch struct {
	reader Reader
	topic  string

	mu    sync.Mutex
	watch *state.Watch
}

func (l *lazyWatch) c() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch == nil {
		l.watch = l.reader.Watch(l.topic)
	}
	return l.watch.C()
}

func (l *lazyWatch) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watch != nil {
		l.watch.Close()
	}
}
