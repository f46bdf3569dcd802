package zoneagent

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/version"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/uplink"
)

// Status is what a running agent holds, and how it stands to others.
type Status struct {
	Agent      string `json:"agent"`
	Version    string `json:"version"`
	Federation string `json:"federation"`
	Zone       string `json:"zone"` // its id
	// Link is how the link stands at this agent; LinkOwner the agent that owns it, empty where nobody does.
	Link      uplink.Status `json:"link"`
	LinkOwner string        `json:"link_owner,omitempty"`
	// Clusters that this agent owns, by name.
	Clusters []string      `json:"clusters"`
	Agents   []AgentStatus `json:"agents"`
	Store    StoreStatus   `json:"store"`
	// Audit is how far the zone has countersigned the control plane's audit log.
	Audit AuditStatus `json:"audit"`
	// Certificates of this agent, by what they are for.
	Certificates []CertificateStatus `json:"certificates"`
}

// AgentStatus is an agent of the zone as this one hears it.
type AgentStatus struct {
	Name  string    `json:"name"`
	Alive bool      `json:"alive"`
	Since time.Time `json:"since"`
}

// StoreStatus is the zone's store as this agent reaches it.
type StoreStatus struct {
	etcdstore.Membership
	SizeBytes   int64  `json:"size_bytes"`
	QuotaBytes  int64  `json:"quota_bytes,omitempty"`
	Incarnation string `json:"incarnation"`
	// Begun is when the incarnation began, Reason why.
	Begun  time.Time `json:"begun"`
	Reason string    `json:"reason"`
	// Behind: the store may know less than it knew, and nothing is done to VMs before the control plane has told all.
	Behind bool `json:"behind"`
	// Problem is why the store does not answer, empty while it does.
	Problem string `json:"problem,omitempty"`
}

// AuditStatus is what the zone has countersigned of the control plane's audit log.
type AuditStatus struct {
	Entries uint64 `json:"entries"`
	Epoch   uint64 `json:"epoch"`
	// Lost is how many states that it had countersigned restores of the control plane have lost.
	Lost int `json:"lost,omitempty"`
	// Objection is why it does not countersign the log as it was last shown to it, empty where it does.
	Objection string `json:"objection,omitempty"`
}

// CertificateStatus is one of the agent's certificates.
type CertificateStatus struct {
	For  string    `json:"for"`
	Ends time.Time `json:"ends"`
}

// statusPatience bounds what the store may take for its part of the status.
const statusPatience = 5 * time.Second

// status looks at everything now. What cannot be had because the store does not answer is left out, with the reason.
func (a *Agent) status(ctx context.Context) *Status {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	s := &Status{
		Agent: a.config.Name, Version: version.Version, Federation: a.identity.Federation(), Zone: a.identity.ZoneID(),
		Link: a.uplink.Status(), Clusters: []string{},
	}
	for _, m := range a.company.members.Members() {
		s.Agents = append(s.Agents, AgentStatus{Name: m.Name, Alive: m.Alive, Since: m.Since})
	}
	for _, h := range []struct {
		what   string
		holder *pki.Holder
	}{{"link", a.identity.Link}, {"zone", a.identity.Member}, {"edge", a.identity.Edge}} {
		if p := h.holder.Peer(); p != nil {
			s.Certificates = append(s.Certificates, CertificateStatus{For: h.what, Ends: p.NotAfter})
		}
	}
	incarnation, _ := a.store.Incarnation()
	s.Store.Incarnation, s.Store.Begun, s.Store.Reason = incarnation.GetId(), incarnation.GetMintedAt().AsTime(), incarnation.GetReason()
	s.Store.SizeBytes, s.Store.QuotaBytes = a.store.Size()
	if err := a.askStore(ctx, s); err != nil {
		s.Store.Problem = err.Error()
	}
	return s
}

func (a *Agent) askStore(ctx context.Context, s *Status) error {
	cursor, err := a.store.Cursor(ctx)
	if err != nil {
		return err
	}
	s.Store.Behind = cursor.GetBehind()
	owners, err := a.store.Owners(ctx)
	if err != nil {
		return err
	}
	for name, owner := range owners {
		switch {
		case name == etcdstore.UplinkName:
			s.LinkOwner = owner
		case owner == a.config.Name:
			s.Clusters = append(s.Clusters, a.company.clusterName(ctx, name))
		}
	}
	slices.Sort(s.Clusters)
	w, err := a.store.Witness(ctx)
	if err != nil {
		return err
	}
	s.Audit.Entries, s.Audit.Epoch, s.Audit.Lost = w.GetSeen().GetSize(), w.GetSeen().GetEpoch(), len(w.GetLost())
	if o := w.GetObjection(); o != nil {
		s.Audit.Objection = o.GetReason() + ": " + o.GetMessage()
	}
	s.Store.Membership, err = a.store.Membership(ctx)
	return err
}

func (c *Config) statusSocket() string { return filepath.Join(c.Data, "status.sock") }

// serveStatus answers ReadStatus until ctx ends.
func (a *Agent) serveStatus(ctx context.Context) error {
	return obs.ServeSocket(ctx, a.config.statusSocket(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(a.status(r.Context())); err != nil {
			a.log.Debug("tell the status", "error", err)
		}
	}))
}

// ReadStatus asks the agent that runs on c's data folder.
func ReadStatus(ctx context.Context, c *Config) (*Status, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, folder, err := obs.ShortPath(c.statusSocket())
		if err != nil {
			return nil, err
		}
		defer folder.Close()
		return (&net.Dialer{}).DialContext(ctx, "unix", short)
	}}
	ctx, cancel := context.WithTimeout(ctx, 2*statusPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/", nil)
	if err != nil {
		return nil, err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("no agent answers on %s: start it with naru-zoneagent run; what one that starts waits for, /readyz says: %w", c.Data, err)
	}
	defer answer.Body.Close()
	s := &Status{}
	if err := json.NewDecoder(answer.Body).Decode(s); err != nil {
		return nil, fmt.Errorf("the answer of the agent on %s: %w", c.Data, err)
	}
	return s, nil
}
