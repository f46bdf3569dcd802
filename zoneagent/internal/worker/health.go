package worker

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// health is how a host is, as this agent finds it.
type health struct {
	known   bool
	level   apiv1.Host_Health
	reason  string
	changed time.Time
	silent  int  // rounds in a row without an answer
	asking  bool // the other agents are being asked
}

func healthOf(h *apiv1.Host) health {
	if h.GetHealth() == apiv1.Host_HEALTH_UNSPECIFIED {
		return health{}
	}
	return health{known: true, level: h.GetHealth(), reason: h.GetHealthReason(), changed: h.GetHealthChangedAt().AsTime()}
}

// freshness of the VMs on a host: live while it answers, and until it is known that it does not.
func (h *host) freshness() apiv1.Freshness_Level {
	if h.lost() || h.away() {
		return apiv1.Freshness_UNREACHABLE
	}
	return apiv1.Freshness_LIVE
}

// away tells whether it is known that the host does not answer here.
func (h *host) away() bool {
	return h.health.level == apiv1.Host_DOWN || h.health.level == apiv1.Host_DEGRADED
}

// toHealth changes a host's health and has all that follows from it written.
func (t *Term) toHealth(h *host, level apiv1.Host_Health, reason string) {
	const most = 1024
	if len(reason) > most {
		reason = reason[:most-len("…")] + "…"
	}
	was := h.health
	h.health.known, h.health.level, h.health.reason = true, level, reason
	if was.level == level && was.known {
		// The words may differ from round to round; what was said first stays.
		h.health.reason = was.reason
		return
	}
	h.health.changed = time.Now()
	t.log.Info("a host's health has changed", "host", h.name(), "from", was.level, "to", level, "reason", reason)
	t.dirty[h.id] = true
	if soon := time.Now().Add(gatherFor); soon.Before(t.flushes) {
		t.flushes = soon
	}
	for id := range t.zone.on[h.id] {
		t.due[id] = true
	}
}

// answered: a round went well.
func (t *Term) answered(h *host) {
	h.health.silent = 0
	if h.lost() {
		t.toHealth(h, apiv1.Host_FENCED, "it answers, and was declared lost: nothing on it is started or changed")
		return
	}
	t.toHealth(h, apiv1.Host_AVAILABLE, "")
}

// silent: a round found no answer. A host is suspect first; when it stays silent the other agents are asked.
func (t *Term) silent(h *host, err error) {
	h.health.silent++
	if h.health.silent < t.limits.SuspectRounds {
		if !h.lost() && !h.away() {
			t.toHealth(h, apiv1.Host_SUSPECT, err.Error())
		}
		return
	}
	if h.health.asking {
		return
	}
	if t.w.cfg.Others == nil {
		t.toHealth(h, apiv1.Host_DOWN, err.Error())
		return
	}
	h.health.asking = true
	t.job(func() func() {
		agents, failed := t.w.cfg.Others.Reach(t.ctx, h.id)
		return func() {
			h.health.asking = false
			if h.health.silent == 0 || h.handle == nil {
				return
			}
			switch {
			case len(agents) > 0:
				t.toHealth(h, apiv1.Host_DEGRADED, fmt.Sprintf("%s cannot reach it (%v); %s can",
					t.w.cfg.Agent, err, strings.Join(agents, ", ")))
			case failed != nil:
				t.toHealth(h, apiv1.Host_DOWN, fmt.Sprintf("%v; no other agent could be asked: %v", err, failed))
			default:
				t.toHealth(h, apiv1.Host_DOWN, err.Error())
			}
		}
	})
}

func stamp(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}
