package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/zoneagent"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
	"github.com/naru-project/naru/zoneagent/internal/uplink"
)

func TestTheStatusIsWrittenForPeople(t *testing.T) {
	when := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	s := &zoneagent.Status{
		Agent: "agent-1", Version: "v1", Federation: "naru.example", Zone: "z-1",
		Link:      uplink.Status{State: "revoked", Since: when, Why: "by an administrator"},
		LinkOwner: "agent-1", Clusters: []string{"kvm", "test"},
		Agents: []zoneagent.AgentStatus{{Name: "agent-1", Alive: true, Since: when}, {Name: "agent-2", Since: when}},
		Store: zoneagent.StoreStatus{
			Membership: etcdstore.Membership{Members: 3, Voters: 2, Here: true}, SizeBytes: 5 << 20, QuotaBytes: 2 << 30,
			Incarnation: "i-1", Begun: when, Reason: "the first", Behind: true,
		},
		Audit:        zoneagent.AuditStatus{Entries: 1207, Epoch: 7, Lost: 1},
		Certificates: []zoneagent.CertificateStatus{{For: "link", Ends: when}},
	}
	const want = `agent              agent-1, version v1
zone               z-1 of federation naru.example
link               revoked since 2026-11-21T10:00:00Z (by an administrator)
owner of the link  agent-1
owns clusters      kvm, test
hears agent        agent-1, alive since 2026-11-21T10:00:00Z
hears agent        agent-2, silent since 2026-11-21T10:00:00Z
store              behind: nothing is done to VMs before the control plane has told all that is wanted
store's members    3, of which 2 vote; one of them here
store's size       5 of 2048 MiB
incarnation        i-1 since 2026-11-21T10:00:00Z (the first)
audit log          1207 entries countersigned
audit log          restores of the control plane have lost what was countersigned, 1 times
certificate        of the link, until 2026-11-21T10:00:00Z
`
	if got := written(t, s); got != want {
		t.Errorf("got\n%s", got)
	}
	s.Store.Problem, s.Clusters, s.LinkOwner, s.Audit.Objection = "no quorum", nil, "", "FORK: why"
	for _, line := range []string{"audit log          not countersigned beyond entry 1207 (FORK: why)\n", "store              does not answer (no quorum)\n", "owns clusters      none\n", "owner of the link  none\n"} {
		if got := written(t, s); !strings.Contains(got, line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
}

func written(t *testing.T, s *zoneagent.Status) string {
	t.Helper()
	var out bytes.Buffer
	if err := printStatus(&out, s); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
