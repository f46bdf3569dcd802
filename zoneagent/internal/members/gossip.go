package members

import (
	"bytes"
	"context"
	"log/slog"

	"github.com/hashicorp/memberlist"
)

// words is what memberlist asks and tells. It is called under memberlist's lock and never waits.
type words struct {
	list *Members
	meta []byte
}

// NodeMeta is what others are told of this agent.
func (w *words) NodeMeta(int) []byte { return w.meta }

// NotifyMsg and what follows carry user data, of which there is none.
func (w *words) NotifyMsg([]byte)                {}
func (w *words) GetBroadcasts(int, int) [][]byte { return nil }
func (w *words) LocalState(bool) []byte          { return nil }
func (w *words) MergeRemoteState([]byte, bool)   {}

func (w *words) NotifyJoin(n *memberlist.Node)   { w.list.note(n, true) }
func (w *words) NotifyUpdate(n *memberlist.Node) { w.list.note(n, true) }

func (w *words) NotifyLeave(n *memberlist.Node) { w.list.note(n, false) }

// NotifyConflict: two agents go by one name.
func (w *words) NotifyConflict(have, other *memberlist.Node) {
	w.list.cfg.Log.Error("two agents of the zone have the same name: give one of them another",
		"agent", have.Name, "known_at", have.Address(), "also_at", other.Address())
}

// logWriter brings memberlist's lines into the log, at the level that they begin with.
type logWriter struct {
	log *slog.Logger
}

func (w logWriter) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	text := bytes.TrimSpace(line)
	for mark, l := range map[string]slog.Level{"[WARN] ": slog.LevelInfo, "[ERR] ": slog.LevelWarn} {
		if rest, ok := bytes.CutPrefix(text, []byte(mark)); ok {
			level, text = l, rest
		}
	}
	text = bytes.TrimPrefix(bytes.TrimPrefix(text, []byte("[DEBUG] ")), []byte("[INFO] "))
	w.log.Log(context.Background(), level, "gossip", "said", string(text))
	return len(line), nil
}
