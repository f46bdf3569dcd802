package cli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestABrokersListTellsWhoReachesItForWhichZonesAndUntilWhen(t *testing.T) {
	d := newDesk(t)
	ids := map[string]string{}
	for name, letter := range map[string]string{"inner": "A", "outer": "B", "gone": "C"} {
		d.must("broker create " + name + " --hub-address 10.0.0.1:7444 --fingerprint SHA256:" + strings.Repeat(letter, 43))
		var broker struct{ ID string }
		if err := json.Unmarshal([]byte(d.must("broker show "+name+" -o json")), &broker); err != nil {
			t.Fatal(err)
		}
		ids[name] = broker.ID
	}
	business := d.Zone("business").GetId()
	now, earlier := timestamppb.Now(), timestamppb.New(time.Now().Add(-5*time.Minute))
	first, next := timestamppb.New(time.Date(2031, 2, 3, 4, 5, 6, 0, time.Local)), timestamppb.New(time.Date(2032, 2, 3, 4, 5, 6, 0, time.Local))
	down := `connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:7444: connect: connection refused"`
	d.Sights = []*apiv1.Broker{
		{Id: ids["inner"], Version: "v1", CertificateExpiresAt: first, Connections: []*apiv1.Broker_Connection{{Server: "cp-1", Connected: true, SeenAt: now, Zones: []string{business}}}},
		{Id: ids["inner"], Version: "v1", CertificateExpiresAt: next, Connections: []*apiv1.Broker_Connection{{Server: "cp-2", Connected: true, SeenAt: now}}},
		{Id: ids["outer"], CertificateExpiresAt: first, Connections: []*apiv1.Broker_Connection{{Server: "cp-1", Connected: true, SeenAt: now}}},
		{Id: ids["outer"], Connections: []*apiv1.Broker_Connection{{Server: "cp-2", Reason: down, SeenAt: earlier}}},
		{Id: ids["gone"], Connections: []*apiv1.Broker_Connection{{Server: "cp-1", Reason: down, SeenAt: earlier}}},
		{Id: ids["gone"], Connections: []*apiv1.Broker_Connection{{Server: "cp-2", Reason: down}}},
	}
	got := strings.Join(strings.Fields(d.must("broker list -o wide --order-by name")), " ")
	for _, row := range []string{
		"gone 10.0.0.1:7444 false unreachable 0/2 - 5m ago - - dial tcp 10.0.0.1:7444: connect: connection refused SHA256:",
		"inner 10.0.0.1:7444 false connected 2/2 business 0s ago 2032-02-03 04:05:06 v1 - SHA256:",
		"outer 10.0.0.1:7444 false degraded 1/2 - 0s ago 2031-02-03 04:05:06",
	} {
		if !strings.Contains(got, row) {
			t.Errorf("it does not show %q:\n%s", row, got)
		}
	}
	if got := d.must("broker show inner"); !strings.Contains(got, "cp-1, connected") || !strings.Contains(got, "zones business") {
		t.Errorf("show:\n%s", got)
	}
}
