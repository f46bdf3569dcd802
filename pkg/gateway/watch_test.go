package gateway

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func watched(items ...proto.Message) far {
	return far{stream: map[string]func(metadata.MD, proto.Message) ([]proto.Message, error){
		watchVMs: func(md metadata.MD, in proto.Message) ([]proto.Message, error) {
			r := in.(*apiv1.WatchVMsRequest)
			switch {
			case r.GetAfter() == "7-1" || len(md.Get("last-event-id")) == 1:
				return nil, problem.New(problem.Gone, "revision 7-1 is no longer kept", "List again.")
			case r.GetFilter() == "cut":
				return items, problem.New(problem.Unavailable, "the leader moved", "Watch again.")
			}
			return items, nil
		},
	}}
}

func TestAWatchIsServerSentEvents(t *testing.T) {
	h := newHandler(t, watched(
		&apiv1.WatchVMsResponse{Type: apiv1.WatchType_BOOKMARK, Revision: "7-8"},
		&apiv1.WatchVMsResponse{Type: apiv1.WatchType_PUT, Revision: "7-9", Vm: &apiv1.VM{Name: "web-1", UserData: "a\nb"}},
		&apiv1.WatchVMsResponse{Type: apiv1.WatchType_DELETE, Revision: "7-10", Vm: &apiv1.VM{Name: "web-1"}},
	))
	for _, accept := range []string{"text/event-stream", "*/*", "application/json"} {
		w := call(h, "GET", "/v1/vms:watch?project=web", "", "Accept", accept)
		if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" || !w.Flushed {
			t.Fatalf("status %d, headers %v: %s", w.Code, w.Header(), w.Body)
		}
		var kinds, ids []string
		lines := bufio.NewScanner(w.Body)
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "event":
				kinds = append(kinds, value)
			case "id":
				ids = append(ids, value)
			case "data":
				if !json.Valid([]byte(value)) {
					t.Fatalf("data %q is no JSON", value)
				}
			case "":
			default:
				t.Fatalf("line %q", lines.Text())
			}
		}
		if strings.Join(kinds, " ") != "bookmark put delete" || strings.Join(ids, " ") != "7-8 7-9 7-10" {
			t.Fatalf("events %v, ids %v", kinds, ids)
		}
	}
}

func TestAWatchThatIsRefusedIsAProblemAndNoStream(t *testing.T) {
	h := newHandler(t, watched())
	for _, c := range [][]string{{"/v1/vms:watch?after=7-1"}, {"/v1/vms:watch", "Last-Event-Id", "7-1"}} {
		p := problemOf(t, call(h, "GET", c[0], "", c[1:]...))
		if p.Status != http.StatusGone || p.Next != "List again." {
			t.Fatalf("got %+v", p)
		}
	}
	if p := problemOf(t, call(h, "GET", "/v1/vms:watch?nofield=1", "")); p.Code != "INVALID" {
		t.Fatalf("got %+v", p)
	}
}

func TestAWatchThatEndsEarlySaysWhyInItsLastEvent(t *testing.T) {
	h := newHandler(t, watched(&apiv1.WatchVMsResponse{Type: apiv1.WatchType_BOOKMARK, Revision: "7-8"}))
	w := call(h, "GET", "/v1/vms:watch?filter=cut", "")
	_, last, found := strings.Cut(w.Body.String(), "event: error\ndata: ")
	var p problemBody
	if !found || json.Unmarshal([]byte(last), &p) != nil || p.Code != "UNAVAILABLE" {
		t.Fatalf("got %s", w.Body)
	}
}
