package state

import "sync"

// What there is to watch beside the nouns' tables (vms, zones …). Desired and Orders also exist for one zone alone.
const (
	// TopicDesired changes when what a zone should hold does.
	TopicDesired = "desired"
	// TopicOrders changes when a journal to a zone grows or is acknowledged.
	TopicOrders = "orders"
	// TopicIdentity changes with the keyring, join tokens, members and revocations.
	TopicIdentity = "identity"
	// TopicAudit changes when the audit log grows, TopicCheckpoints when its newest checkpoint does.
	TopicAudit       = "audit"
	TopicCheckpoints = "checkpoints"
)

// ForZone narrows TopicDesired or TopicOrders to one zone.
func ForZone(topic, zoneID string) string { return topic + "/" + zoneID }

// Watch is level-triggered: its channel has something to give as long as a watched table may have changed since it was
// last received from. It says at once that it may, so that a loop needs no first read of its own:
//
//	for range w.C() { … View … }
//
// The channel is closed when the database is.
type Watch struct {
	c      chan struct{}
	all    *watches
	topics []string
}

// C returns the channel.
func (w *Watch) C() <-chan struct{} { return w.c }

// Close ends the watch. Its channel gives nothing any more.
func (w *Watch) Close() { w.all.remove(w) }

func (w *Watch) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// Watch returns a watch over tables and topics.
func (db *DB) Watch(topics ...string) *Watch {
	w := &Watch{c: make(chan struct{}, 1), all: &db.watches, topics: topics}
	db.watches.add(w)
	return w
}

// watches knows who watches what.
type watches struct {
	mu      sync.Mutex
	byTopic map[string]map[*Watch]struct{}
	closed  bool
}

func (s *watches) add(w *Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(w.c)
		return
	}
	if s.byTopic == nil {
		s.byTopic = map[string]map[*Watch]struct{}{}
	}
	for _, t := range w.topics {
		if s.byTopic[t] == nil {
			s.byTopic[t] = map[*Watch]struct{}{}
		}
		s.byTopic[t][w] = struct{}{}
	}
	w.wake()
}

func (s *watches) remove(w *Watch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range w.topics {
		delete(s.byTopic[t], w)
		if len(s.byTopic[t]) == 0 {
			delete(s.byTopic, t)
		}
	}
}

// publish wakes who watches any of the topics.
func (s *watches) publish(topics map[string]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range topics {
		for w := range s.byTopic[t] {
			w.wake()
		}
	}
}

// publishAll wakes everybody: the whole state is another.
func (s *watches) publishAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ws := range s.byTopic {
		for w := range ws {
			w.wake()
		}
	}
}

func (s *watches) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	closed := map[*Watch]bool{}
	for _, ws := range s.byTopic {
		for w := range ws {
			if !closed[w] {
				closed[w] = true
				close(w.c)
			}
		}
	}
	s.byTopic = nil
}
