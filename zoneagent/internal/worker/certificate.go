package worker

import (
	"fmt"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// How long before a host's certificate ends it is told, and told again in earnest.
const (
	certificateSoon = 30 * 24 * time.Hour
	certificateNow  = 7 * 24 * time.Hour
)

// warning is what was told of a certificate that ends.
type warning struct {
	ends   time.Time
	urgent bool
}

// watchCertificate tells in time that a host's certificate ends: the host keeps it, so nobody here can renew it. It is told
// once at each of the two times, and again by an agent that takes the cluster over.
func (t *Term) watchCertificate(h *host, ends time.Time) {
	left := time.Until(ends)
	if ends.IsZero() || left > certificateSoon {
		h.warned = warning{}
		return
	}
	now := warning{ends: ends, urgent: left <= certificateNow}
	if h.warned == now {
		return
	}
	was := h.warned
	h.warned = now
	severity := apiv1.Event_WARNING
	if now.urgent {
		severity = apiv1.Event_ERROR
	}
	message := fmt.Sprintf("the certificate of host %s ends at %s; from then on it cannot be reached anew: give it another (naru-zoneagent issue)",
		h.name(), ends.UTC().Format(time.RFC3339))
	t.log.Warn("a host's certificate ends soon", "host", h.name(), "ends", ends)
	e := t.event("host.certificate", severity, &apiv1.Reference{Kind: "host", Id: h.id, Name: h.name()}, "", message)
	t.commit(func(tx Tx) { tx.Journal(e) }, func(_ int64, err error) {
		if err != nil {
			h.warned = was
		}
	})
}
