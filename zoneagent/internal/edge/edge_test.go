package edge

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/desk"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// plane is the control plane as the edge reaches it: it knows bearers by their tokens, and can be cut off.
type plane struct {
	cut    bool
	knows  map[string]string // token → project
	asked  map[string]int    // method → calls
	from   map[string]string // method → the address that came with it
	refuse problem.Code      // of every call but WhoAmI
	ends   time.Time         // of every credential
	watch  problem.Code      // how a watch that has begun ends
}

func (p *plane) Invoke(ctx context.Context, name string, _, reply any, _ ...grpc.CallOption) error {
	p.asked[name]++
	md, _ := metadata.FromOutgoingContext(ctx)
	p.from[name] = strings.Join(md.Get(link.MDClient), " ")
	project, known := p.knows[first(md.Get("authorization"))]
	switch {
	case p.cut:
		return problem.ToStatus(problem.New(problem.LinkDown, "the zone has no session", ""))
	case !known:
		return problem.ToStatus(problem.New(problem.Unauthenticated, "who is that", ""))
	case name == apiv1.AccessTokenService_WhoAmI_FullMethodName:
		proto.Merge(reply.(proto.Message), &apiv1.WhoAmIResponse{Project: project})
		if !p.ends.IsZero() {
			reply.(*apiv1.WhoAmIResponse).ExpiresAt = timestamppb.New(p.ends)
		}
	case p.refuse != "":
		return problem.ToStatus(problem.New(p.refuse, "no", ""))
	}
	return nil
}

func (p *plane) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	if p.watch != "" {
		return watch{code: p.watch}, nil
	}
	return nil, problem.ToStatus(problem.New(problem.LinkDown, "the zone has no session", ""))
}

// watch is a stream that ends with a refusal.
type watch struct {
	grpc.ClientStream
	code problem.Code
}

func (w watch) RecvMsg(any) error { return problem.ToStatus(problem.New(w.code, "no", "")) }

// picture is of nouns, each as it is wanted and as it is observed.
type picture [][2]proto.Message

func (p picture) Nouns(kind string, fn func(desired, observed proto.Message)) {
	for _, noun := range p {
		if etcdstore.KindOf(noun[0]) == kind {
			fn(noun[0], noun[1])
		}
	}
}

// stand is an edge with its control plane, and a clock.
type stand struct {
	*testing.T
	*Conn
	plane *plane
	now   time.Time
	down  time.Time // of the link, as this agent knows
}

func newStand(t *testing.T) *stand {
	t.Helper()
	vm := func(id, project string) *apiv1.VM {
		return &apiv1.VM{Id: id, Name: "name-" + id, Project: project, ProjectId: "p-" + project, Zone: "business", ZoneId: "z-business",
			Generation: &apiv1.Generation{Epoch: 1, Index: 2}, DesiredState: apiv1.VM_RUNNING}
	}
	local := desk.NewReader(picture{
		{&apiv1.Zone{Id: "z-business", Name: "business", State: apiv1.Zone_ONLINE, Freshness: apiv1.Freshness_LIVE}},
		{&apiv1.Zone{Id: "z-kept", Name: "kept", State: apiv1.Zone_MAINTENANCE, StateReason: "new disks", Freshness: apiv1.Freshness_LIVE}},
		{vm("b", "web")},
		{vm("a", "web"), &apiv1.VM{Id: "a", Name: "other", State: apiv1.VM_RUNNING, Power: apiv1.VM_ON,
			Address: "10.91.2.10", HostFreshness: apiv1.Freshness_LIVE}},
		{vm("c", "theirs")},
	})
	d := &stand{T: t, plane: &plane{knows: map[string]string{"Bearer web": "web"}, asked: map[string]int{}, from: map[string]string{}}, now: time.Unix(1e9, 0)}
	var err error
	if d.Conn, err = NewConn(d.plane, local, func() time.Time { return d.now }, func() time.Time { return d.down }); err != nil {
		t.Fatal(err)
	}
	return d
}

func as(token string) context.Context {
	if token == "" {
		return context.Background()
	}
	return metadata.NewOutgoingContext(context.Background(), metadata.Pairs("authorization", "Bearer "+token))
}

func (d *stand) list(token string, r *apiv1.ListVMsRequest) ([]*apiv1.VM, error) {
	reply := &apiv1.ListVMsResponse{}
	err := d.Invoke(as(token), apiv1.VMService_ListVMs_FullMethodName, r, reply)
	return reply.GetVms(), problem.FromStatus(err)
}

func (d *stand) refused(what string, err error, code problem.Code) {
	d.Helper()
	if !problem.Is(problem.FromStatus(err), code) {
		d.Errorf("%s: %v, want %s", what, err, code)
	}
}

// TestTheControlPlaneIsToldFromWhereSomebodyShowsWhoTheyAre, as it was and not as they say, and of no other call.
func TestTheControlPlaneIsToldFromWhereSomebodyShowsWhoTheyAre(t *testing.T) {
	d := newStand(t)
	address := netip.MustParseAddrPort("[fd00:1:2:3::7]:443")
	secrets := &apiv1.Sealed{KeyId: "k", Ciphertext: make([]byte, 48)}
	for what, ctx := range map[string]context.Context{
		"over gRPC": peer.NewContext(as("web"), &peer.Peer{Addr: net.TCPAddrFromAddrPort(address)}),
		"over HTTP": context.WithValue(as("web"), remoteKey{}, address.String()),
	} {
		clear(d.plane.from)
		for name, call := range map[string][2]proto.Message{
			apiv1.SessionService_LogIn_FullMethodName:  {&apiv1.LogInRequest{User: "kim", Secrets: secrets, SecretHash: make([]byte, 32)}, &apiv1.LogInResponse{}},
			apiv1.SessionService_StepUp_FullMethodName: {&apiv1.StepUpRequest{Secrets: secrets}, &apiv1.StepUpResponse{}},
			apiv1.VMService_ListVMs_FullMethodName:     {&apiv1.ListVMsRequest{}, &apiv1.ListVMsResponse{}},
		} {
			if err := d.Invoke(ctx, name, call[0], call[1]); err != nil {
				t.Fatal(err)
			}
			want := "fd00:1:2:3::/64"
			if name == apiv1.VMService_ListVMs_FullMethodName {
				want = ""
			}
			if got := d.plane.from[name]; got != want {
				t.Errorf("%s the control plane is told that %s came from %q, want %q", what, name, got, want)
			}
		}
	}
	forged := metadata.AppendToOutgoingContext(as("web"), link.MDClient, "10.0.0.1/32")
	if err := d.overGRPC().Invoke(forged, apiv1.SessionService_StepUp_FullMethodName, &apiv1.StepUpRequest{Secrets: secrets}, &apiv1.StepUpResponse{}); err != nil {
		t.Fatal(err)
	}
	if got := d.plane.from[apiv1.SessionService_StepUp_FullMethodName]; got != "" {
		t.Errorf("what the caller says of their address is taken over: %q", got)
	}
}

// vouched has the control plane vouch for the bearer, and cuts the zone off.
func (d *stand) vouchedAndCut() {
	d.Helper()
	if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil {
		d.Fatal(err)
	}
	d.plane.cut = true
}

func TestWhatNoEdgeServesIsRefusedBeforeItIsPassedOn(t *testing.T) {
	d := newStand(t)
	d.refused("no such method", d.Invoke(as("web"), "/naru.api.v1.VMService/Nothing", &apiv1.ListVMsRequest{}, nil), problem.Unsupported)
	d.refused("not at an edge", d.Invoke(as("web"), apiv1.ProjectService_CreateProject_FullMethodName, &apiv1.CreateProjectRequest{}, nil), problem.Forbidden)
	_, err := d.list("", &apiv1.ListVMsRequest{})
	d.refused("no token", err, problem.Unauthenticated)
	_, err = d.list("web", &apiv1.ListVMsRequest{PageSize: 5000})
	d.refused("a rule is broken", err, problem.Invalid)
	if _, err := d.NewStream(as("web"), nil, "/naru.api.v1.VMService/Nothing"); err == nil {
		t.Error("a stream of no such method was begun")
	}
	if len(d.plane.asked) > 0 {
		t.Errorf("the control plane was asked %v", d.plane.asked)
	}
}

// P14: cut off, a caller whom the control plane has vouched for reads the zone's own VMs of its project, and no others.
func TestP14CutOffAnEdgeReadsForThoseItKnowsAndOnlyTheirs(t *testing.T) {
	d := newStand(t)
	d.vouchedAndCut()
	vms, err := d.list("web", &apiv1.ListVMsRequest{})
	if err != nil || len(vms) != 2 || vms[0].GetId() != "a" || vms[1].GetId() != "b" {
		t.Fatalf("read %v, %v", vms, err)
	}
	if a := vms[0]; a.GetState() != apiv1.VM_RUNNING || a.GetAddress() != "10.91.2.10" || a.GetName() != "name-a" || a.GetFreshness() != apiv1.Freshness_LIVE {
		t.Errorf("what is wanted and what is observed make %v", a)
	}
	if a := vms[0]; a.GetGeneration() != nil {
		t.Errorf("internal fields are left: %v", a)
	}
	if vms[1].GetFreshness() != apiv1.Freshness_STALE {
		t.Errorf("nothing is observed of it: %v", vms[1])
	}
	for what, r := range map[string]*apiv1.ListVMsRequest{"another project": {Project: "theirs"}, "another zone": {Zone: "internet"}} {
		if vms, err := d.list("web", r); err != nil || len(vms) != 0 {
			t.Errorf("%s: read %v, %v", what, vms, err)
		}
	}
	for _, r := range []*apiv1.ListVMsRequest{{Zone: "business"}, {Zone: "z-business", Project: "web"}, {Project: "p-web"}} {
		if vms, err := d.list("web", r); err != nil || len(vms) != 2 {
			t.Errorf("%v: read %v, %v", r, vms, err)
		}
	}
	for _, r := range []*apiv1.ListVMsRequest{{Filter: "state=running"}, {OrderBy: "name"}, {PageToken: "x"}} {
		_, err := d.list("web", r)
		d.refused(fmt.Sprint(r), err, problem.LinkDown)
	}
	_, err = d.list("stranger", &apiv1.ListVMsRequest{})
	d.refused("a stranger", err, problem.LinkDown)
	get := func(id string) error {
		return d.Invoke(as("web"), apiv1.VMService_GetVM_FullMethodName, &apiv1.GetVMRequest{Vm: id}, &apiv1.GetVMResponse{})
	}
	if err := get("name-b"); err != nil {
		t.Error(err)
	}
	d.refused("another project's VM", get("c"), problem.NotFound)
	d.refused("a write", d.Invoke(as("web"), apiv1.VMService_DeleteVM_FullMethodName, &apiv1.DeleteVMRequest{Vm: "a"}, &apiv1.DeleteVMResponse{}), problem.LinkDown)
	zones := &apiv1.ListZonesResponse{}
	if err := d.Invoke(as("web"), apiv1.ZoneService_ListZones_FullMethodName, &apiv1.ListZonesRequest{}, zones); err != nil || len(zones.GetZones()) != 2 {
		t.Errorf("zones %v, %v", zones, err)
	}
}

// overGRPC is a connection to the edge as it serves gRPC.
func (d *stand) overGRPC() grpc.ClientConnInterface {
	d.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer(grpc.UnknownServiceHandler(d.ServeUnknown))
	go func() { _ = s.Serve(l) }()
	d.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:edge", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close() })
	return conn
}

// said is what the header of an answer says of its consistency.
func (d *stand) said(conn grpc.ClientConnInterface) []string {
	d.Helper()
	var header metadata.MD
	if err := conn.Invoke(as("web"), apiv1.VMService_ListVMs_FullMethodName, &apiv1.ListVMsRequest{}, &apiv1.ListVMsResponse{}, grpc.Header(&header)); err != nil {
		d.Fatal(err)
	}
	return header.Get(gateway.ConsistencyHeader)
}

// P14: what a cut-off zone answers for itself is not taken for everything.
func TestP14CutOffAnEdgeSaysThatItAnswersForItselfAndSinceWhen(t *testing.T) {
	d := newStand(t)
	if said := d.said(d); said != nil {
		t.Errorf("the control plane's answer says %q", said)
	}
	want := func(since time.Time) {
		t.Helper()
		if said := d.said(d); len(said) != 1 || said[0] != gateway.LocalSince(since) {
			t.Errorf("the answer says %q, want since %v", said, since)
		}
	}
	d.plane.cut = true
	met := d.now
	want(met)
	d.now = d.now.Add(time.Minute)
	want(met)
	d.down = met.Add(-time.Minute) // this agent owns the link now, and knows better
	want(d.down)
	d.down, d.plane.cut = time.Time{}, false
	if said := d.said(d); said != nil {
		t.Errorf("after the cut an answer says %q", said)
	}
	d.plane.cut = true
	want(d.now)
	if said := d.said(d.overGRPC()); len(said) != 1 || said[0] != gateway.LocalSince(d.now) {
		t.Errorf("over gRPC the answer says %q", said)
	}
}

func TestACutOffZoneShowsItselfAsDisconnectedSinceTheCut(t *testing.T) {
	d := newStand(t)
	d.vouchedAndCut()
	d.down = d.now.Add(-time.Minute)
	list := &apiv1.ListZonesResponse{}
	if err := d.Invoke(as("web"), apiv1.ZoneService_ListZones_FullMethodName, &apiv1.ListZonesRequest{}, list); err != nil {
		t.Fatal(err)
	}
	one := &apiv1.GetZoneResponse{}
	if err := d.Invoke(as("web"), apiv1.ZoneService_GetZone_FullMethodName, &apiv1.GetZoneRequest{Zone: "business"}, one); err != nil {
		t.Fatal(err)
	}
	for what, z := range map[string]*apiv1.Zone{"listed": list.GetZones()[0], "got": one.GetZone()} {
		if z.GetState() != apiv1.Zone_DISCONNECTED || z.GetFreshness() != apiv1.Freshness_STALE || !z.GetStateChangedAt().AsTime().Equal(d.down) || z.GetStateReason() == "" {
			t.Errorf("%s: %v", what, z)
		}
	}
	if z := list.GetZones()[1]; z.GetState() != apiv1.Zone_MAINTENANCE || z.GetStateReason() != "new disks" || z.GetFreshness() != apiv1.Freshness_STALE {
		t.Errorf("what an administrator decided: %v", z)
	}
}

func TestACallerIsKnownForAnHourAndAskedAboutEveryFewMinutes(t *testing.T) {
	d := newStand(t)
	who := apiv1.AccessTokenService_WhoAmI_FullMethodName
	for _, after := range []struct {
		pass  time.Duration
		asked int
	}{{0, 1}, {4 * time.Minute, 1}, {2 * time.Minute, 2}} {
		d.now = d.now.Add(after.pass)
		if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil || d.plane.asked[who] != after.asked {
			t.Errorf("asked %d times, want %d; %v", d.plane.asked[who], after.asked, err)
		}
	}
	d.plane.cut = true
	d.now = d.now.Add(59 * time.Minute)
	if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil {
		t.Errorf("within the hour: %v", err)
	}
	d.now = d.now.Add(2 * time.Minute)
	_, err := d.list("web", &apiv1.ListVMsRequest{})
	d.refused("after the hour", err, problem.LinkDown)
}

// A refusal of the control plane is an answer: nothing is read locally instead.
func TestARefusalIsNotAnsweredLocally(t *testing.T) {
	d := newStand(t)
	if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil {
		t.Fatal(err)
	}
	d.plane.refuse = problem.Forbidden
	vms, err := d.list("web", &apiv1.ListVMsRequest{})
	d.refused("forbidden", err, problem.Forbidden)
	if len(vms) != 0 {
		t.Errorf("read %v", vms)
	}
}

// P12: whose token the control plane has refused reads nothing here when the link is cut after that, within the hour or not.
func TestP12ATokenThatWasRefusedReadsNothingLocally(t *testing.T) {
	for _, code := range []problem.Code{problem.TokenInvalid, problem.TokenExpired} {
		d := newStand(t)
		if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil {
			t.Fatal(err)
		}
		d.plane.refuse = code
		_, err := d.list("web", &apiv1.ListVMsRequest{})
		d.refused("at the control plane", err, code)
		d.plane.cut = true
		_, err = d.list("web", &apiv1.ListVMsRequest{})
		d.refused("cut off", err, problem.LinkDown)
	}
}

func TestP12ATokenThatWasRefusedUnderAWatchReadsNothingLocally(t *testing.T) {
	for code, forgotten := range map[problem.Code]bool{
		problem.TokenExpired: true, problem.TokenInvalid: true, problem.Forbidden: false, problem.Unavailable: false,
	} {
		d := newStand(t)
		if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil {
			t.Fatal(err)
		}
		d.plane.watch = code
		s, err := d.NewStream(as("web"), nil, apiv1.VMService_WatchVMs_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		d.refused("the watch", s.RecvMsg(nil), code)
		d.plane.cut = true
		if _, err = d.list("web", &apiv1.ListVMsRequest{}); (err != nil) != forgotten {
			t.Errorf("after %s, cut off: %v", code, err)
		}
	}
}

// P12: what the control plane would not take any more is not taken in its stead.
func TestP12ATokenThatHasExpiredReadsNothingAtAnEdgeThatIsCutOff(t *testing.T) {
	d := newStand(t)
	d.plane.ends = d.now.Add(10 * time.Minute)
	d.vouchedAndCut()
	d.now = d.plane.ends.Add(-time.Second)
	if _, err := d.list("web", &apiv1.ListVMsRequest{}); err != nil {
		t.Errorf("before its end: %v", err)
	}
	d.now = d.plane.ends
	_, err := d.list("web", &apiv1.ListVMsRequest{})
	d.refused("after its end", err, problem.LinkDown)
}

func TestCallersAreRememberedWithinABound(t *testing.T) {
	now := time.Unix(1e9, 0)
	v := newVouched(func() time.Time { return now })
	for i := range vouchedMost + 10 {
		v.put(fmt.Sprint(i), &apiv1.WhoAmIResponse{})
	}
	if len(v.by) != vouchedMost {
		t.Errorf("%d are remembered", len(v.by))
	}
	now = now.Add(vouchedFresh + time.Second)
	v.put("new", &apiv1.WhoAmIResponse{Project: "web"})
	if who, ok := v.get("new"); !ok || who.GetProject() != "web" || len(v.by) != 1 {
		t.Errorf("the old make way: %v, %v, %d", who, ok, len(v.by))
	}
}
