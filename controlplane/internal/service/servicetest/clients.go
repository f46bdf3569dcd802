package servicetest

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Admin calls as an administrator.
func (w *World) Admin() *client.Services { return client.NewServices(as{w.API.Local(), "admin"}) }

// In calls with a token of a project, by name.
func (w *World) In(project string) *client.Services {
	w.Helper()
	return client.NewServices(as{w.API.Local(), w.TokenOf(project)})
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
func (w *World) Nobody() *client.Services { return client.NewServices(w.API.Local()) }

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
	case len(words) == 4:
		return auth.Principal{Kind: auth.User, Name: words[1], UserID: words[2], ID: words[2], Actor: "user:" + words[1], SessionID: "s-" + words[2]}, nil
	case len(words) == 5:
		return auth.Principal{Kind: auth.AccessToken, Name: words[1], ID: "t-" + words[2], UserID: words[2], Actor: "token:" + words[1], ZoneID: words[3], Zone: words[4], Expires: time.Now().Add(time.Hour)}, nil
	case len(words) == 3:
		return auth.Principal{Kind: auth.AccessToken, Name: words[1], Actor: "token:" + words[1], Project: words[1], ProjectID: words[2]}, nil
	}
	return auth.Principal{}, nil
}

func (everybody) Recheck(context.Context, auth.Principal) error { return nil }
