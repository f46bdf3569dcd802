package api_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/service"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dispatch carries out a unary call of a zone's user.
func (f *federation) dispatch(c api.LinkCall, into proto.Message) error {
	f.Helper()
	answers := 0
	err := f.server.Dispatcher().Dispatch(context.Background(), c, func(body []byte) error {
		answers++
		return proto.Unmarshal(body, into)
	})
	if err == nil && answers != 1 {
		f.Fatalf("%d answers", answers)
	}
	return err
}

func TestAZonesUserCallsThroughTheLink(t *testing.T) {
	f := newFederation(t, 1)
	f.Cross("web", "internet", "business", "vm.create")
	token := f.token("ci", "web", "internet")
	made := &apiv1.CreateVMResponse{}
	err := f.dispatch(api.LinkCall{
		ZoneID: f.Internet.GetId(), Token: token, IdempotencyKey: "k", Method: apiv1.VMService_CreateVM_FullMethodName,
		Body: encode(t, &apiv1.CreateVMRequest{Vm: f.VM("web-1", "web")}),
	}, made)
	if err != nil || made.GetOperation().GetCreatedBy() != "token:ci" {
		t.Fatalf("%v, %v", made, err)
	}
	me := &apiv1.WhoAmIResponse{}
	if err := f.dispatch(api.LinkCall{ZoneID: f.Internet.GetId(), Token: token, Method: apiv1.AccessTokenService_WhoAmI_FullMethodName}, me); err != nil || me.GetProject() != "web" || me.GetZone() != "internet" {
		t.Fatalf("%v, %v", me, err)
	}
}

// TestP15AnAgentsWordAboutWhoCallsIsNotBelieved: nothing but a token counts, in its own zone only, for methods that an
// edge may reach only.
func TestP15AnAgentsWordAboutWhoCallsIsNotBelieved(t *testing.T) {
	f := newFederation(t, 1)
	bound := f.token("bound", "web", "business")
	for about, c := range map[string]struct {
		call api.LinkCall
		code problem.Code
	}{
		"no token":                          {api.LinkCall{Method: apiv1.VMService_ListVMs_FullMethodName}, problem.Unauthenticated},
		"an administrator's name for token": {api.LinkCall{Method: apiv1.VMService_ListVMs_FullMethodName, Token: "admin"}, problem.TokenInvalid},
		"another zone's token":              {api.LinkCall{Method: apiv1.VMService_ListVMs_FullMethodName, Token: bound}, problem.Forbidden},
		"a method that no edge may reach":   {api.LinkCall{Method: apiv1.ZoneService_CreateZone_FullMethodName, Token: bound}, problem.Forbidden},
		"a backup":                          {api.LinkCall{Method: apiv1.ServerService_BackUp_FullMethodName, Token: bound}, problem.Forbidden},
		"a method that does not exist":      {api.LinkCall{Method: "/naru.api.v1.VMService/Format", Token: bound}, problem.Forbidden},
		"another service's method":          {api.LinkCall{Method: "/naru.command.v1.PeerService/Propose", Token: bound}, problem.Forbidden},
		"no method":                         {api.LinkCall{Token: bound}, problem.Forbidden},
		"a body that is no message":         {api.LinkCall{ZoneID: f.Business.GetId(), Method: apiv1.VMService_ListVMs_FullMethodName, Token: bound, Body: []byte{0xff}}, problem.Invalid},
		"too large a body":                  {api.LinkCall{Method: apiv1.VMService_ListVMs_FullMethodName, Token: bound, Body: make([]byte, 1<<20+1)}, problem.TooLarge},
		"a key with a line break":           {api.LinkCall{Method: apiv1.VMService_ListVMs_FullMethodName, Token: bound, IdempotencyKey: "a\nb"}, problem.Invalid},
	} {
		t.Run(about, func(t *testing.T) {
			if c.call.ZoneID == "" {
				c.call.ZoneID = f.Internet.GetId()
			}
			err := f.dispatch(c.call, &apiv1.ListVMsResponse{})
			if !problem.Is(err, c.code) || problem.Of(err).GetNext() == "" {
				t.Fatalf("got %v, want %s", err, c.code)
			}
		})
	}
}

func TestAWatchThroughTheLinkEndsWithItsReader(t *testing.T) {
	f := newFederation(t, 1)
	enough := errors.New("enough")
	var kinds []apiv1.WatchType_Value
	err := f.server.Dispatcher().Dispatch(t.Context(), api.LinkCall{
		ZoneID: f.Internet.GetId(), Token: f.token("ci", "web", ""), Method: apiv1.VMService_WatchVMs_FullMethodName,
	}, func(body []byte) error {
		m := &apiv1.WatchVMsResponse{}
		if err := proto.Unmarshal(body, m); err != nil {
			t.Error(err)
		}
		if kinds = append(kinds, m.GetType()); len(kinds) == 2 {
			return enough
		}
		return nil
	})
	if err == nil || len(kinds) != 2 || kinds[0] != apiv1.WatchType_BOOKMARK {
		t.Fatalf("%v, %v", kinds, err)
	}
}

// odd is a service that misbehaves.
type odd struct {
	apiv1.UnimplementedZoneServiceServer
	block chan struct{}
}

func (o odd) GetZone(ctx context.Context, r *apiv1.GetZoneRequest) (*apiv1.GetZoneResponse, error) {
	switch r.GetZone() {
	case "panic":
		panic("a fault")
	case "block":
		<-o.block
	case "foreign":
		return nil, errors.New("open /etc/secret: no such file")
	case "late":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &apiv1.GetZoneResponse{Zone: &apiv1.Zone{Name: r.GetZone()}}, nil
}

func oddServer(t *testing.T) (apiv1.ZoneServiceClient, odd) {
	t.Helper()
	o := odd{block: make(chan struct{})}
	s, err := api.New(api.Config{
		Register: func(r grpc.ServiceRegistrar) { apiv1.RegisterZoneServiceServer(r, o) }, Who: anybody{}, Current: func(context.Context) error { return nil }, May: anybody{}, Gatherer: prometheus.NewRegistry(), Audit: unwritten{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return apiv1.NewZoneServiceClient(s.Local()), o
}

type unwritten struct{}

func (unwritten) RecordRefusal(context.Context, string, error) error      { return nil }
func (unwritten) RecordRead(context.Context, string, proto.Message) error { return nil }

type anybody struct{}

func (anybody) Authenticate(context.Context, auth.Credentials) (auth.Principal, error) {
	return auth.Principal{Kind: auth.Admin, Name: "kim"}, nil
}
func (anybody) Recheck(context.Context, auth.Principal) error { return nil }
func (anybody) Authorize(_ context.Context, c service.Call) error {
	c.Asked.Note()
	return nil
}
func (anybody) Disclose(context.Context, string, proto.Message) error { return nil }

func TestAPanicEndsOneCallOnly(t *testing.T) {
	zones, _ := oddServer(t)
	_, err := zones.GetZone(t.Context(), &apiv1.GetZoneRequest{Zone: "panic"})
	if p := problem.Of(problem.FromStatus(err)); p.GetCode() != string(problem.Internal) || strings.Contains(p.String(), "a fault") || p.GetTraceId() == "" {
		t.Fatalf("got %v", p)
	}
	if _, err := zones.GetZone(t.Context(), &apiv1.GetZoneRequest{Zone: "ok"}); err != nil {
		t.Fatal(err)
	}
}

func TestTheTextOfAForeignErrorStaysInside(t *testing.T) {
	zones, _ := oddServer(t)
	_, err := zones.GetZone(t.Context(), &apiv1.GetZoneRequest{Zone: "foreign"})
	if p := problem.Of(problem.FromStatus(err)); p.GetCode() != string(problem.Internal) || strings.Contains(p.String(), "secret") {
		t.Fatalf("got %v", p)
	}
}

func TestACallersDeadlineCounts(t *testing.T) {
	zones, _ := oddServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := zones.GetZone(ctx, &apiv1.GetZoneRequest{Zone: "late"})
	if !problem.Is(problem.FromStatus(err), problem.Timeout) {
		t.Fatal(err)
	}
}

// TestP26OverloadSheds: beyond what the server takes, a call is told so at once instead of waiting.
func TestP26OverloadSheds(t *testing.T) {
	zones, o := oddServer(t)
	var waiting sync.WaitGroup
	outcome := make(chan error, 5000)
	for range cap(outcome) {
		waiting.Go(func() {
			_, err := zones.GetZone(t.Context(), &apiv1.GetZoneRequest{Zone: "block"})
			outcome <- problem.FromStatus(err)
		})
	}
	shed := 0
	for shed < 5000-4096 {
		if err := <-outcome; !problem.Is(err, problem.TooMany) {
			t.Fatalf("got %v", err)
		}
		shed++
	}
	close(o.block)
	waiting.Wait()
	for len(outcome) > 0 {
		if err := <-outcome; err != nil {
			t.Fatalf("one that was admitted: %v", err)
		}
	}
}

// FuzzDispatch holds that no bytes of a zone's make the server fail inside.
func FuzzDispatch(f *testing.F) {
	fed := newFederation(f, 1)
	token := fed.token("ci", "web", "")
	var names []string
	for name, d := range apiMethods() {
		if !d.IsStreamingServer() {
			names = append(names, name)
		}
	}
	f.Add(0, []byte{})
	f.Add(1, encode(f, &apiv1.CreateVMRequest{Vm: fed.VM("web-1", "web")}))
	f.Add(2, encode(f, &apiv1.ListVMsRequest{Filter: "name=web-1 AND state!=RUNNING", OrderBy: "name desc", PageSize: 3, PageToken: "x"}))
	f.Fuzz(func(t *testing.T, n int, body []byte) {
		name := names[(n%len(names)+len(names))%len(names)]
		err := fed.server.Dispatcher().Dispatch(t.Context(), api.LinkCall{ZoneID: fed.Business.GetId(), Method: name, Token: token, Body: body}, func([]byte) error { return nil })
		if problem.Is(err, problem.Internal) {
			t.Fatalf("%s %x: %v", name, body, err)
		}
	})
}

// FuzzFilter holds that no filter, order or page token makes the server fail inside.
func FuzzFilter(f *testing.F) {
	fed := newFederation(f, 1)
	vms := fed.Admin().VMs
	f.Add("state=RUNNING AND name!=web-1", "name desc", "")
	f.Add(`name~"a b" AND created_at>2026-01-31T00:00:00Z`, "id", "x")
	f.Add("name='; DROP TABLE vms; --", "1", "AAAA")
	f.Fuzz(func(t *testing.T, filter, order, token string) {
		_, err := vms.ListVMs(t.Context(), &apiv1.ListVMsRequest{Filter: filter, OrderBy: order, PageToken: token})
		if err != nil && !problem.Is(err, problem.Invalid) {
			t.Fatalf("%q %q %q: %v", filter, order, token, err)
		}
	})
}
