package service_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func TestServersAreShownAsTheyAreSeenNow(t *testing.T) {
	w := servicetest.New(t)
	w.Do(&commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: &apiv1.Server{Id: "server-2", Name: "controlplane-2"}}}})
	w.Live = []*apiv1.Server{{Id: "server-1", Role: apiv1.Server_LEADER, Voter: true, Healthy: true, AppliedIndex: "9", Version: "v1", Sessions: 3}}
	r, err := w.Admin().Servers.ListServers(t.Context(), &apiv1.ListServersRequest{OrderBy: "name"})
	if err != nil || len(r.GetServers()) != 2 {
		t.Fatalf("%v, %v", r, err)
	}
	one, two := r.GetServers()[0], r.GetServers()[1]
	if one.GetName() != "controlplane-1" || one.GetRole() != apiv1.Server_LEADER || !one.GetHealthy() || one.GetSessions() != 3 || one.GetAppliedIndex() != "9" {
		t.Errorf("the leader is shown as %v", one)
	}
	if !one.GetMember() || !one.GetVoter() {
		t.Errorf("one that takes part is shown as %v", one)
	}
	if two.GetHealthy() || two.GetMember() || two.GetVoter() || two.GetRole() != apiv1.Server_ROLE_UNSPECIFIED {
		t.Errorf("one that takes no part is shown as %v", two)
	}
	got, err := w.Admin().Servers.GetServer(t.Context(), &apiv1.GetServerRequest{Server: "controlplane-1"})
	if err != nil || got.GetServer().GetVersion() != "v1" {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestWithoutALeaderServersAreShownAsTheOneThatIsAskedKnowsThem(t *testing.T) {
	w := servicetest.New(t)
	w.Live = []*apiv1.Server{{Id: "server-1", Role: apiv1.Server_FOLLOWER, Healthy: true}}
	said := func() []string {
		t.Helper()
		var header metadata.MD
		r, err := w.Admin().Servers.ListServers(t.Context(), &apiv1.ListServersRequest{}, grpc.Header(&header))
		if err != nil || len(r.GetServers()) != 1 || !r.GetServers()[0].GetHealthy() {
			t.Fatalf("%v, %v", r, err)
		}
		return header.Get(gateway.ConsistencyHeader)
	}
	if got := said(); got != nil {
		t.Errorf("with a leader the answer says %q", got)
	}
	w.Leaderless.Store(true)
	if got := said(); len(got) != 1 || got[0] != gateway.Stale {
		t.Errorf("the answer says %q", got)
	}
	if _, err := w.Admin().Servers.GetServer(t.Context(), &apiv1.GetServerRequest{Server: "controlplane-1"}); err != nil {
		t.Error(err)
	}
	_, err := w.Admin().Zones.ListZones(t.Context(), &apiv1.ListZonesRequest{})
	refuses(t, err, problem.Unavailable, "no server leads")
}

func TestAServerLeavesTheQuorumThenTheStateAndTheLastOneStays(t *testing.T) {
	w := servicetest.New(t)
	_, err := w.Admin().Servers.DeleteServer(t.Context(), &apiv1.DeleteServerRequest{Server: "controlplane-1"})
	refuses(t, err, problem.InUse, "the last one")
	w.Do(&commandv1.Command{Body: &commandv1.Command_PutServer{PutServer: &commandv1.PutServer{Server: &apiv1.Server{Id: "server-2", Name: "controlplane-2"}}}})
	ctx := with(t.Context(), "idempotency-key", "k")
	for range 2 { // the second time by its key: the server is gone
		r, err := w.Admin().Servers.DeleteServer(ctx, &apiv1.DeleteServerRequest{Server: "controlplane-2"})
		if err != nil || !r.GetOperation().GetDone() {
			t.Fatalf("%v, %v", r, err)
		}
	}
	if got := w.Removed(); len(got) != 1 || got[0] != "server-2" {
		t.Fatalf("out of the quorum: %v", got)
	}
	_, err = w.Admin().Servers.DeleteServer(t.Context(), &apiv1.DeleteServerRequest{Server: "controlplane-2"})
	refuses(t, err, problem.NotFound, "no server controlplane-2")
}

// TestP24ABackupArrivesInPiecesAndWhole for lengths on and beside the size of a piece.
func TestP24ABackupArrivesInPiecesAndWhole(t *testing.T) {
	const piece = 256 << 10
	for _, n := range []int{0, 1, piece - 1, piece, piece + 1, 3 * piece} {
		w := servicetest.New(t)
		w.Backup = bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		stream, err := w.Admin().Servers.BackUp(t.Context(), &apiv1.BackUpRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		var last int
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(m.GetSha256()) == 0 {
				got, last = append(got, m.GetChunk()...), len(m.GetChunk())
			}
		}
		if !bytes.Equal(got, w.Backup) || last == piece {
			t.Errorf("%d bytes: %d came, the last piece has %d", n, len(got), last)
		}
	}
}

func TestTopHostsAreTheBusiestFirstAndHideNone(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(4)
	now := timestamppb.Now()
	sample := func(i int, zone string, cpu float64) *apiv1.HostSample {
		return &apiv1.HostSample{HostId: site.Hosts[i].GetId(), Zone: zone, CpuRatio: cpu, Time: now, SeenAt: now}
	}
	w.HostSamples = []*apiv1.HostSample{
		sample(0, "business", 0.1), sample(1, "business", 0.9), sample(2, "business", 0.5),
		sample(3, "internet", 0.99), // another zone's word
		{HostId: "no-such-host", Zone: "business", CpuRatio: 1, Time: now},
	}
	r, err := w.Admin().Hosts.TopHosts(t.Context(), &apiv1.TopHostsRequest{Zone: "business"})
	if err != nil {
		t.Fatal(err)
	}
	if got := topNames(r.GetSamples()); got != "kvm-2 kvm-3 kvm-1 kvm-4" {
		t.Errorf("in this order: %s", got)
	}
	if silent := r.GetSamples()[3]; silent.GetTime() != nil || silent.GetCpuRatio() != 0 {
		t.Errorf("a host that nothing is known of: %v", silent)
	}
	_, err = w.Admin().Hosts.TopHosts(t.Context(), &apiv1.TopHostsRequest{Zone: "nowhere"})
	refuses(t, err, problem.NotFound, "no zone nowhere")
}

func topNames(samples []*apiv1.HostSample) string {
	var names []string
	for _, m := range samples {
		names = append(names, m.GetHost())
	}
	return strings.Join(names, " ")
}

func TestTheHostsAndVMsOfAZoneThatIsAwayAreShownWithWhatWasSeenLast(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(2)
	create(t, w.Admin(), w.VM("web-1", "web"))
	web := show(t, w.Admin(), "web-1", "web")
	on := proto.CloneOf(web)
	on.State, on.Power, on.Reached = apiv1.VM_RUNNING, apiv1.VM_ON, web.GetGeneration()
	w.Observe(site.Business.GetId(), on)
	w.Connect(site.Business.GetId(), true)
	early, late := timestamppb.New(time.Unix(1e9, 0)), timestamppb.New(time.Unix(1e9+60, 0))
	w.HostSamples = []*apiv1.HostSample{ // of two servers that had the zone one after the other
		{HostId: site.Hosts[0].GetId(), Zone: "business", CpuRatio: 0.7, Time: late, SeenAt: late, Freshness: apiv1.Freshness_STALE},
		{HostId: site.Hosts[0].GetId(), Zone: "business", CpuRatio: 0.2, Time: early, SeenAt: early, Freshness: apiv1.Freshness_STALE},
	}
	top := func() ([]*apiv1.HostSample, []*apiv1.VMSample) {
		t.Helper()
		hosts, err := w.Admin().Hosts.TopHosts(t.Context(), &apiv1.TopHostsRequest{Zone: "business"})
		if err != nil {
			t.Fatal(err)
		}
		vms, err := w.In("web").VMs.TopVMs(t.Context(), &apiv1.TopVMsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return hosts.GetSamples(), vms.GetSamples()
	}
	if hosts, vms := top(); len(hosts) != 2 || hosts[0].GetTime() != nil || len(vms) != 0 {
		t.Errorf("while the zone is here, what it sent before: %v, %v", hosts, vms)
	}
	w.Connect(site.Business.GetId(), false)
	gone := w.Zone("business").GetStateChangedAt()
	hosts, vms := top()
	if len(hosts) != 2 || len(vms) != 1 {
		t.Fatalf("%v, %v", hosts, vms)
	}
	if m := hosts[0]; m.GetFreshness() != apiv1.Freshness_STALE || m.GetCpuRatio() != 0.7 || !proto.Equal(m.GetSeenAt(), late) {
		t.Errorf("a host with figures: %v", m)
	}
	if m := hosts[1]; m.GetFreshness() != apiv1.Freshness_STALE || m.GetTime() != nil || !proto.Equal(m.GetSeenAt(), gone) {
		t.Errorf("a host without: %v", m)
	}
	if m := vms[0]; m.GetVm() != "web-1" || m.GetFreshness() != apiv1.Freshness_STALE || m.GetTime() != nil || !proto.Equal(m.GetSeenAt(), gone) {
		t.Errorf("a VM without: %v", m)
	}
}

func TestAnOperationThatHangsIsResolvedByAnAdministratorOnce(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	op := create(t, w.Admin(), w.VM("web-1", "web"))
	resolve := func() (*apiv1.Operation, error) {
		r, err := w.Admin().Operations.ResolveOperation(t.Context(), &apiv1.ResolveOperationRequest{Operation: op.GetId(), Outcome: apiv1.ResolveOperationRequest_FAIL, Reason: "the host burnt"})
		return r.GetOperation(), err
	}
	got, err := resolve()
	if err != nil || !got.GetDone() || got.GetError() == nil {
		t.Fatalf("%v, %v", got, err)
	}
	_, err = resolve()
	refuses(t, err, problem.WrongState, "is done")
	_, err = w.Admin().Operations.ResolveOperation(t.Context(), &apiv1.ResolveOperationRequest{Operation: op.GetId()})
	refuses(t, err, problem.Invalid, "outcome")
}
