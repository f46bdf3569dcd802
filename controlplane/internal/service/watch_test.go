package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// reader reads a watch of projects as a client does.
type reader struct {
	testing.TB
	stream grpc.ServerStreamingClient[apiv1.WatchProjectsResponse]
}

func watchProjects(t testing.TB, ctx context.Context, c *client.Services, r *apiv1.WatchProjectsRequest) *reader {
	t.Helper()
	stream, err := c.Projects.WatchProjects(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t, stream}
}

func (r *reader) next() *apiv1.WatchProjectsResponse {
	r.Helper()
	m, err := r.stream.Recv()
	if err != nil {
		r.Fatal(err)
	}
	return m
}

// expect reads one message and holds that it is "PUT name" or the like.
func (r *reader) expect(want string) *apiv1.WatchProjectsResponse {
	r.Helper()
	m := r.next()
	if got := strings.TrimSpace(m.GetType().String() + " " + m.GetProject().GetName()); got != want {
		r.Fatalf("got %s, want %s", got, want)
	}
	return m
}

func project(t testing.TB, w *servicetest.World, name string) {
	t.Helper()
	if _, err := w.Admin().Projects.CreateProject(context.Background(), &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: name}}); err != nil {
		t.Fatal(err)
	}
}

func unproject(t testing.TB, w *servicetest.World, name string) {
	t.Helper()
	if _, err := w.Admin().Projects.DeleteProject(context.Background(), &apiv1.DeleteProjectRequest{Project: name}); err != nil {
		t.Fatal(err)
	}
}

func TestAWatchTellsWhatIsThereThenWhatChanges(t *testing.T) {
	w := servicetest.New(t)
	project(t, w, "web")
	r := watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{})
	if m := r.expect("BOOKMARK"); m.GetRevision() != "7-0" {
		t.Fatalf("the first bookmark has revision %s", m.GetRevision())
	}
	if m := r.expect("PUT web"); m.GetRevision() != "7-0" {
		t.Fatal("a reader that is cut off here would not begin again")
	}
	synced := r.expect("BOOKMARK").GetRevision()
	project(t, w, "db")
	put := r.expect("PUT db")
	if put.GetRevision() <= synced || put.GetProject().GetRevision() != put.GetRevision() {
		t.Fatalf("revision %s behind %s", put.GetRevision(), synced)
	}
	unproject(t, w, "web")
	if m := r.expect("DELETE web"); m.GetProject().GetId() == "" {
		t.Fatal("what is deleted is not told as it last was")
	}
}

func TestAWatchGoesOnWhereItStopped(t *testing.T) {
	w := servicetest.New(t)
	project(t, w, "web")
	ctx, cut := context.WithCancel(t.Context())
	r := watchProjects(t, ctx, w.Admin(), &apiv1.WatchProjectsRequest{})
	r.expect("BOOKMARK")
	r.expect("PUT web")
	stood := r.expect("BOOKMARK").GetRevision()
	cut()
	project(t, w, "a")
	project(t, w, "b")
	unproject(t, w, "a")
	for about, resume := range map[string]func() *reader{
		"after": func() *reader {
			return watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{After: stood})
		},
		"Last-Event-ID goes before after": func() *reader {
			return watchProjects(t, with(t.Context(), "last-event-id", stood), w.Admin(), &apiv1.WatchProjectsRequest{After: "7-0"})
		},
	} {
		t.Run(about, func(t *testing.T) {
			r := resume()
			r.TB = t
			if m := r.expect("BOOKMARK"); m.GetRevision() != stood {
				t.Fatalf("it begins at %s", m.GetRevision())
			}
			// In the order of revisions; what the reader need not see any more may be left out.
			last, seen := stood, map[string]bool{}
			for !seen["DELETE a"] {
				m := r.next()
				seen[m.GetType().String()+" "+m.GetProject().GetName()] = true
				if m.GetRevision() <= last {
					t.Fatalf("revision %s comes behind %s", m.GetRevision(), last)
				}
				last = m.GetRevision()
			}
			if !seen["PUT b"] || seen["PUT web"] {
				t.Fatalf("seen %v", seen)
			}
		})
	}
}

func TestAWatchFromARevisionThatIsNoLongerKeptSaysListAgain(t *testing.T) {
	w := servicetest.New(t)
	for _, after := range []string{"7-999999", "8-1"} {
		_, err := watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{After: after}).stream.Recv()
		refuses(t, problem.FromStatus(err), problem.Gone, after)
		if next := problem.Of(problem.FromStatus(err)).GetNext(); !strings.Contains(strings.ToLower(next), "list again") {
			t.Errorf("it says %q", next)
		}
	}
	_, err := watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{After: "yesterday"}).stream.Recv()
	refuses(t, problem.FromStatus(err), problem.Invalid, "yesterday")
}

func TestAWatchEndsWhenAnEpochBegins(t *testing.T) {
	w := servicetest.New(t)
	r := watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{})
	r.expect("BOOKMARK")
	r.expect("BOOKMARK")
	w.Do(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: 8, EpochId: slices.Repeat([]byte{1}, 16), Reason: "restored"}}})
	project(t, w, "web")
	for {
		m, err := r.stream.Recv()
		if err != nil {
			refuses(t, problem.FromStatus(err), problem.Gone, "7-")
			return
		}
		if m.GetType() != apiv1.WatchType_BOOKMARK {
			t.Fatalf("got %v", m)
		}
	}
}

func TestAWatchWithAFilterTellsWhatLeavesItAsDeleted(t *testing.T) {
	w := servicetest.New(t)
	site := w.NewSite(1)
	c := w.In("web")
	create(t, c, w.VM("web-1", "web"))
	create(t, c, w.VM("web-2", "web"))
	r, err := c.VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{Filter: "desired_state=RUNNING AND name=web-1"})
	if err != nil {
		t.Fatal(err)
	}
	want := func(kind apiv1.WatchType_Value) *apiv1.WatchVMsResponse {
		t.Helper()
		m, err := r.Recv()
		if err != nil || m.GetType() != kind || kind != apiv1.WatchType_BOOKMARK && m.GetVm().GetName() != "web-1" {
			t.Fatalf("got %v, %v, want %s", m, err, kind)
		}
		return m
	}
	want(apiv1.WatchType_BOOKMARK)
	want(apiv1.WatchType_PUT)
	stood := want(apiv1.WatchType_BOOKMARK).GetRevision()
	for _, name := range []string{"web-2", "web-1"} {
		if _, err := c.VMs.DeleteVM(t.Context(), &apiv1.DeleteVMRequest{Vm: name}); err != nil {
			t.Fatal(err)
		}
	}
	want(apiv1.WatchType_DELETE)
	// A reader who was away hears of it too, though nobody knows what it holds.
	if r, err = c.VMs.WatchVMs(t.Context(), &apiv1.WatchVMsRequest{Filter: "desired_state=RUNNING AND name=web-1", After: stood}); err != nil {
		t.Fatal(err)
	}
	want(apiv1.WatchType_BOOKMARK)
	for {
		m, err := r.Recv()
		if err != nil || m.GetType() != apiv1.WatchType_DELETE {
			t.Fatalf("got %v, %v", m, err)
		}
		if m.GetVm().GetName() == "web-1" {
			break
		}
	}
	_ = site
}

func TestP14AWatchShowsTheCallersProjectOnly(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := w.In("web").VMs.WatchVMs(ctx, &apiv1.WatchVMsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	create(t, w.In("db"), w.VM("db-1", "db"))
	create(t, w.In("web"), w.VM("web-1", "web"))
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetVm() != nil && m.GetVm().GetProject() != "web" {
			t.Fatalf("another project's VM is shown: %v", m)
		}
		if m.GetVm().GetGeneration() != nil {
			t.Fatal("an internal field is shown")
		}
		if m.GetVm().GetName() == "web-1" {
			break
		}
	}
	cancel()
	_, err = watchVMs(t, w.In("web"), &apiv1.WatchVMsRequest{Project: "db"}).Recv()
	refuses(t, problem.FromStatus(err), problem.NotFound, "no project db")
}

func watchVMs(t *testing.T, c *client.Services, r *apiv1.WatchVMsRequest) grpc.ServerStreamingClient[apiv1.WatchVMsResponse] {
	t.Helper()
	stream, err := c.VMs.WatchVMs(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// TestAReaderWhoIsFarBehindGetsEverything lets many changes pass while a reader reads nothing: more than the feed keeps.
func TestAReaderWhoIsFarBehindGetsEverything(t *testing.T) {
	w := servicetest.New(t)
	r := watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{})
	r.expect("BOOKMARK")
	r.expect("BOOKMARK")
	o, err := w.Admin().Organizations.GetOrganization(t.Context(), &apiv1.GetOrganizationRequest{Organization: "default"})
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000
	for i := range n {
		w.Do(&commandv1.Command{Body: &commandv1.Command_CreateProject{CreateProject: &commandv1.CreateProject{
			Project: &apiv1.Project{Id: fmt.Sprintf("p-%05d", i), Name: fmt.Sprintf("p%d", i), Organization: "default", OrganizationId: o.GetOrganization().GetId()},
		}}})
	}
	for i := range n {
		for {
			m := r.next()
			if m.GetType() == apiv1.WatchType_BOOKMARK {
				continue
			}
			if m.GetProject().GetName() != fmt.Sprintf("p%d", i) {
				t.Fatalf("change %d is %v", i, m)
			}
			break
		}
	}
}

// TestWatchersConverge: whatever is made and deleted, and wherever readers are cut off, each ends with what is there.
func TestWatchersConverge(t *testing.T) {
	w := servicetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		held := map[string]bool{}
		after := ""
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			for _, n := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 6).Draw(rt, "toggles") {
				name := fmt.Sprintf("p%d", n)
				if _, err := w.Admin().Projects.GetProject(t.Context(), &apiv1.GetProjectRequest{Project: name}); err == nil {
					unproject(t, w, name)
				} else {
					project(t, w, name)
				}
			}
			ctx, cut := context.WithCancel(t.Context())
			r := watchProjects(t, ctx, w.Admin(), &apiv1.WatchProjectsRequest{After: after})
			if after == "" {
				clear(held)
			}
			marker := fmt.Sprintf("m%d", rapid.Uint32().Draw(rt, "marker"))
			project(t, w, marker)
			for seen := false; !seen; {
				m := r.next()
				switch m.GetType() {
				case apiv1.WatchType_PUT:
					held[m.GetProject().GetName()] = true
				case apiv1.WatchType_DELETE:
					delete(held, m.GetProject().GetName())
				}
				if !strings.HasSuffix(m.GetRevision(), "-0") {
					after = m.GetRevision()
				}
				seen = m.GetProject().GetName() == marker
			}
			cut()
			unproject(t, w, marker)
			delete(held, marker)
			var want []string
			all, err := w.Admin().Projects.ListProjects(t.Context(), &apiv1.ListProjectsRequest{PageSize: 1000})
			if err != nil {
				rt.Fatal(err)
			}
			for _, p := range all.GetProjects() {
				want = append(want, p.GetName())
				if !held[p.GetName()] {
					rt.Fatalf("project %s is there and was not told", p.GetName())
				}
			}
			if len(held) != len(want) {
				rt.Fatalf("held %v, there are %v", held, want)
			}
		}
	})
}

func TestAWatchEndsWithItsReader(t *testing.T) {
	w := servicetest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := watchProjects(t, ctx, w.Admin(), &apiv1.WatchProjectsRequest{})
	r.expect("BOOKMARK")
	cancel()
	for {
		_, err := r.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) || !problem.Is(problem.FromStatus(err), problem.Cancelled) {
				t.Fatalf("got %v", err)
			}
			return
		}
	}
}

func TestAWatchHearsEveryFifteenSecondsThatItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := servicetest.New(t)
		r := watchProjects(t, t.Context(), w.Admin(), &apiv1.WatchProjectsRequest{})
		r.expect("BOOKMARK")
		began := time.Now()
		last := r.expect("BOOKMARK").GetRevision()
		for i := range 3 {
			w.Do(&commandv1.Command{Body: &commandv1.Command_Noop{Noop: &commandv1.Noop{}}})
			m := r.expect("BOOKMARK")
			if waited := time.Since(began); waited != time.Duration(i+1)*15*time.Second {
				t.Fatalf("bookmark %d came after %s", i, waited)
			}
			if m.GetRevision() <= last {
				t.Fatalf("the bookmark stands still at %s", m.GetRevision())
			}
			last = m.GetRevision()
		}
	})
}
