package servicetest

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Clients are all services of the API, called by one principal.
type Clients struct {
	Zones        apiv1.ZoneServiceClient
	Clusters     apiv1.ClusterServiceClient
	Hosts        apiv1.HostServiceClient
	Flavors      apiv1.FlavorServiceClient
	Images       apiv1.ImageServiceClient
	Projects     apiv1.ProjectServiceClient
	Brokers      apiv1.BrokerServiceClient
	VMs          apiv1.VMServiceClient
	Operations   apiv1.OperationServiceClient
	Events       apiv1.EventServiceClient
	Servers      apiv1.ServerServiceClient
	AccessTokens apiv1.AccessTokenServiceClient
}

// NewClients returns the services behind a connection.
func NewClients(conn grpc.ClientConnInterface) *Clients {
	return &Clients{
		Zones: apiv1.NewZoneServiceClient(conn), Clusters: apiv1.NewClusterServiceClient(conn), Hosts: apiv1.NewHostServiceClient(conn),
		Flavors: apiv1.NewFlavorServiceClient(conn), Images: apiv1.NewImageServiceClient(conn), Projects: apiv1.NewProjectServiceClient(conn),
		Brokers: apiv1.NewBrokerServiceClient(conn), VMs: apiv1.NewVMServiceClient(conn), Operations: apiv1.NewOperationServiceClient(conn),
		Events: apiv1.NewEventServiceClient(conn), Servers: apiv1.NewServerServiceClient(conn), AccessTokens: apiv1.NewAccessTokenServiceClient(conn),
	}
}

// Admin calls as an administrator.
func (w *World) Admin() *Clients { return NewClients(as{w.API.Local(), "admin"}) }

// In calls with a token of a project, by name.
func (w *World) In(project string) *Clients {
	w.Helper()
	return NewClients(as{w.API.Local(), w.TokenOf(project)})
}

// TokenOf is what a call says (as authorization) that comes with a token of a project.
func (w *World) TokenOf(project string) string {
	w.Helper()
	p, err := w.Admin().Projects.GetProject(context.Background(), &apiv1.GetProjectRequest{Project: project})
	if err != nil {
		w.Fatal(err)
	}
	return "token " + project + " " + p.GetProject().GetId()
}

// Nobody calls without saying who.
func (w *World) Nobody() *Clients { return NewClients(w.API.Local()) }

// as says with each call who calls, in words that everybody believes.
type as struct {
	grpc.ClientConnInterface
	who string
}

func (a as) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return problem.FromStatus(a.ClientConnInterface.Invoke(metadata.AppendToOutgoingContext(ctx, "authorization", a.who), method, args, reply, opts...))
}

func (a as) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return a.ClientConnInterface.NewStream(metadata.AppendToOutgoingContext(ctx, "authorization", a.who), desc, method, opts...)
}

// everybody believes who a caller says to be.
type everybody struct{}

func (everybody) Authenticate(_ context.Context, c auth.Credentials) (auth.Principal, error) {
	switch words := strings.Fields(strings.TrimPrefix(c.Authorization, "Bearer ")); {
	case len(words) == 1:
		return auth.Principal{Kind: auth.Admin, Name: words[0], Actor: "spiffe://naru.test/admin/" + words[0]}, nil
	case len(words) == 3:
		return auth.Principal{Kind: auth.AccessToken, Name: words[1], Actor: "token:" + words[1], Project: words[1], ProjectID: words[2]}, nil
	}
	return auth.Principal{}, nil
}

func (everybody) Recheck(context.Context, auth.Principal) error { return nil }
