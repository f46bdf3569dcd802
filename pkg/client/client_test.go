package client_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// after answers UNAVAILABLE until the nth call.
func after(n int, code problem.Code) func() error {
	return func() error {
		if n--; n > 0 {
			return problem.ToStatus(problem.New(code, "no leader is known", ""))
		}
		return nil
	}
}

func TestP2AWriteIsRepeatedUnderOneKeyUntilItIsAnswered(t *testing.T) {
	a := newAuthority(t)
	fails := after(3, problem.Unavailable)
	s := a.serve(t, &server{create: func(context.Context, *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
		return &apiv1.CreateProjectResponse{}, fails()
	}})
	c := a.connect(t, client.Config{}, s)
	if _, err := c.Projects.CreateProject(soon(t), &apiv1.CreateProjectRequest{}); err != nil {
		t.Fatal(err)
	}
	calls := s.seen()
	if len(calls) != 3 || calls[0].key == "" || calls[1].key != calls[0].key || calls[2].key != calls[0].key {
		t.Fatalf("the calls were %+v", calls)
	}
	if _, err := c.Projects.CreateProject(soon(t), &apiv1.CreateProjectRequest{}); err != nil {
		t.Fatal(err)
	}
	if again := s.seen()[3]; again.key == "" || again.key == calls[0].key {
		t.Fatalf("the next write has key %q, as the one before", again.key)
	}
}

func TestAKeyOfTheCallersOwnIsKept(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{})
	ctx := metadata.AppendToOutgoingContext(soon(t), "idempotency-key", "mine")
	if _, err := a.connect(t, client.Config{}, s).Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := s.seen()[0].key; got != "mine" {
		t.Fatalf("the key is %q", got)
	}
}

func TestWritesUnderAKeyGoUnderItInTurnAndARepetitionUnderTheSame(t *testing.T) {
	a := newAuthority(t)
	fails := after(2, problem.LinkDown)
	s := a.serve(t, &server{create: func(context.Context, *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
		return &apiv1.CreateProjectResponse{}, fails()
	}})
	c, ctx := a.connect(t, client.Config{}, s), client.Under(soon(t), "mine")
	for range 2 {
		if _, err := c.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	for _, call := range s.seen() {
		keys = append(keys, call.key)
	}
	if want := []string{"mine", "mine", "mine.2"}; !slices.Equal(keys, want) {
		t.Fatalf("the keys are %q", keys)
	}
}

func TestAReadIsRepeatedAndHasNoKey(t *testing.T) {
	a := newAuthority(t)
	fails := after(2, problem.Unavailable)
	s := a.serve(t, &server{list: func(context.Context) (*apiv1.ListProjectsResponse, error) {
		return &apiv1.ListProjectsResponse{}, fails()
	}})
	if _, err := a.connect(t, client.Config{}, s).Projects.ListProjects(soon(t), &apiv1.ListProjectsRequest{}); err != nil {
		t.Fatal(err)
	}
	if calls := s.seen(); len(calls) != 2 || calls[0].key != "" {
		t.Fatalf("the calls were %+v", calls)
	}
}

func TestARefusalIsNotRepeated(t *testing.T) {
	a := newAuthority(t)
	fails := after(2, problem.NameTaken)
	s := a.serve(t, &server{create: func(context.Context, *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
		return nil, fails()
	}})
	_, err := a.connect(t, client.Config{}, s).Projects.CreateProject(soon(t), &apiv1.CreateProjectRequest{})
	if !problem.Is(problem.From(err), problem.NameTaken) || len(s.seen()) != 1 {
		t.Fatalf("%d calls, %v", len(s.seen()), err)
	}
}

func TestAReadIsAnsweredAtOnceWhereTheLinkIsDown(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{list: func(context.Context) (*apiv1.ListProjectsResponse, error) {
		return nil, problem.ToStatus(problem.New(problem.LinkDown, "the zone has no session", ""))
	}})
	_, err := a.connect(t, client.Config{}, s).Projects.ListProjects(soon(t), &apiv1.ListProjectsRequest{})
	if !problem.Is(problem.From(err), problem.LinkDown) || len(s.seen()) != 1 {
		t.Fatalf("%d calls, %v", len(s.seen()), err)
	}
}

func TestItIsToldAtOnceAndOnceThatAWriteIsRepeatedWhileTheLinkIsDown(t *testing.T) {
	a := newAuthority(t)
	fails := after(4, problem.LinkDown)
	s := a.serve(t, &server{create: func(context.Context, *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
		return &apiv1.CreateProjectResponse{}, fails()
	}})
	var told []int // how many calls there had been
	ctx := client.TellRepeated(soon(t), func(err error) {
		if !problem.Is(problem.FromStatus(err), problem.LinkDown) {
			t.Errorf("told %v", err)
		}
		told = append(told, len(s.seen()))
	})
	if _, err := a.connect(t, client.Config{}, s).Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{}); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || told[0] != 1 || len(s.seen()) != 4 {
		t.Fatalf("told after %v of %d calls", told, len(s.seen()))
	}
}

func TestWithoutADeadlineNothingIsRepeated(t *testing.T) {
	a := newAuthority(t)
	fails := after(2, problem.Unavailable)
	s := a.serve(t, &server{list: func(context.Context) (*apiv1.ListProjectsResponse, error) {
		return &apiv1.ListProjectsResponse{}, fails()
	}})
	_, err := a.connect(t, client.Config{}, s).Projects.ListProjects(t.Context(), &apiv1.ListProjectsRequest{})
	if !problem.Is(problem.From(err), problem.Unavailable) || len(s.seen()) != 1 {
		t.Fatalf("%d calls, %v", len(s.seen()), err)
	}
}

func TestCallsGoToTheServersThatLive(t *testing.T) {
	a := newAuthority(t)
	dead, alive := a.serve(t, &server{}), a.serve(t, &server{})
	c := a.connect(t, client.Config{}, dead, alive)
	dead.grpc.Stop()
	for range 8 {
		if _, err := c.Projects.CreateProject(soon(t), &apiv1.CreateProjectRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(alive.seen()); n != 8 {
		t.Fatalf("%d of 8 calls came to the server that lives", n)
	}
}

func TestAServerThatAnswersUnavailableIsLeftForAnother(t *testing.T) {
	a := newAuthority(t)
	alone := a.serve(t, &server{create: func(context.Context, *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
		return nil, problem.ToStatus(problem.New(problem.Unavailable, "no leader is known", ""))
	}})
	led := a.serve(t, &server{})
	c := a.connect(t, client.Config{}, alone, led)
	for range 4 {
		if _, err := c.Projects.CreateProject(soon(t), &apiv1.CreateProjectRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(led.seen()); n != 4 {
		t.Fatalf("%d of 4 calls were answered", n)
	}
}

func TestATokenTravelsWithEachCall(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{})
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("naru_secret \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []client.Config{{Token: "naru_secret"}, {TokenFile: path}} {
		if _, err := a.connect(t, c, s).Projects.ListProjects(soon(t), &apiv1.ListProjectsRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, got := range s.seen() {
		if got.authorization != "Bearer naru_secret" || got.certificate != "" {
			t.Errorf("the server saw %+v", got)
		}
	}
}

func TestAnAdministratorsCertificateIsShown(t *testing.T) {
	a := newAuthority(t)
	s := a.serve(t, &server{})
	a.issue(t, "admin")
	c := client.Config{CertificateFile: filepath.Join(a.dir, "admin.pem"), KeyFile: filepath.Join(a.dir, "admin.key")}
	if _, err := a.connect(t, c, s).Projects.ListProjects(soon(t), &apiv1.ListProjectsRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := s.seen()[0]; got.certificate != "admin" || got.authorization != "" {
		t.Fatalf("the server saw %+v", got)
	}
}

func TestAServerOfAnotherAuthorityIsNotSpokenTo(t *testing.T) {
	foreign := newAuthority(t).serve(t, &server{})
	_, err := newAuthority(t).connect(t, client.Config{Token: "naru_secret"}, foreign).Projects.ListProjects(t.Context(), &apiv1.ListProjectsRequest{})
	if !problem.Is(problem.From(err), problem.Unavailable) || !strings.Contains(err.Error(), "signed by unknown authority") || len(foreign.seen()) != 0 {
		t.Fatalf("%d calls, %v", len(foreign.seen()), err)
	}
}
