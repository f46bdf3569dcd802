package service_test

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// TestP14WhatIsMadeAnewShowsNothingOfWhatHadItsName: a project and a zone are deleted, and others made under their names. Who has a
// role in the new one sees the operations and events of that alone, in lists, looks and watches.
func TestP14WhatIsMadeAnewShowsNothingOfWhatHadItsName(t *testing.T) {
	w := servicetest.New(t)
	w.Roles()
	a, ctx := w.Admin(), t.Context()
	happened := func(e *apiv1.Event) {
		e.Severity, e.Type = apiv1.Event_INFO, "test.happened"
		w.Do(&commandv1.Command{Body: &commandv1.Command_RecordEvent{RecordEvent: &commandv1.RecordEvent{Event: e}}})
	}
	for about, c := range map[string]struct {
		make, drop func() (*apiv1.Operation, error)
		event      func(id string, message string) *apiv1.Event
		role       string
		scope      apiv1.RoleBinding_Scope
	}{
		"project": {
			func() (*apiv1.Operation, error) {
				r, err := a.Projects.CreateProject(ctx, &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "shop"}})
				return r.GetOperation(), err
			},
			func() (*apiv1.Operation, error) {
				r, err := a.Projects.DeleteProject(ctx, &apiv1.DeleteProjectRequest{Project: "shop"})
				return r.GetOperation(), err
			},
			func(id, message string) *apiv1.Event {
				return &apiv1.Event{Project: "shop", ProjectId: id, Message: message}
			},
			"user", apiv1.RoleBinding_PROJECT,
		},
		"zone": {
			func() (*apiv1.Operation, error) {
				r, err := a.Zones.CreateZone(ctx, &apiv1.CreateZoneRequest{Zone: &apiv1.Zone{Name: "shop"}})
				return r.GetOperation(), err
			},
			func() (*apiv1.Operation, error) {
				r, err := a.Zones.DeleteZone(ctx, &apiv1.DeleteZoneRequest{Zone: "shop"})
				return r.GetOperation(), err
			},
			func(id, message string) *apiv1.Event { return &apiv1.Event{Zone: "shop", ZoneId: id, Message: message} },
			"zone-operator", apiv1.RoleBinding_ZONE,
		},
	} {
		t.Run(about, func(t *testing.T) {
			must := func(op *apiv1.Operation, err error) *apiv1.Operation {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				return op
			}
			old := must(c.make())
			happened(c.event(old.GetTarget().GetId(), "to the old one"))
			gone := must(c.drop())
			anew := must(c.make())
			happened(c.event(anew.GetTarget().GetId(), "to the new one"))
			kim := w.User("kim-"+about, apiv1.User_PERSON)
			w.Bind("b-"+about, c.role, kim, c.scope, "shop")
			sees := w.As(kim)

			operations, err := sees.Operations.ListOperations(ctx, &apiv1.ListOperationsRequest{Filter: "kind!=role-binding.create"})
			if err != nil || len(operations.GetOperations()) != 1 || operations.GetOperations()[0].GetId() != anew.GetId() {
				t.Errorf("operations: %v, %v", operations, err)
			}
			for _, op := range []*apiv1.Operation{old, gone} {
				if _, err := sees.Operations.GetOperation(ctx, &apiv1.GetOperationRequest{Operation: op.GetId()}); !problem.Is(err, problem.NotFound) {
					t.Errorf("%s of the old one: %v", op.GetKind(), err)
				}
			}
			events, err := sees.Events.ListEvents(ctx, &apiv1.ListEventsRequest{Filter: "type=test.happened"})
			if err != nil || len(events.GetEvents()) != 1 || events.GetEvents()[0].GetMessage() != "to the new one" {
				t.Errorf("events: %v, %v", events, err)
			}
			for _, message := range watchedEvents(t, sees) {
				if message == "to the old one" {
					t.Error("a watch tells what happened to the old one")
				}
			}
			all, err := a.Events.ListEvents(ctx, &apiv1.ListEventsRequest{Filter: "type=test.happened AND " + about + "=shop"})
			if err != nil || len(all.GetEvents()) != 2 {
				t.Errorf("who sees everything sees %v, %v", all, err)
			}
		})
	}
}

// watchedEvents is what a watch of events tells of what is there.
func watchedEvents(t *testing.T, c *client.Services) (messages []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stream grpc.ServerStreamingClient[apiv1.WatchEventsResponse]
	stream, err := c.Events.WatchEvents(ctx, &apiv1.WatchEventsRequest{})
	for bookmarks := 0; err == nil && bookmarks < 2; {
		var m *apiv1.WatchEventsResponse
		if m, err = stream.Recv(); m.GetType() == apiv1.WatchType_BOOKMARK {
			bookmarks++
		}
		messages = append(messages, m.GetEvent().GetMessage())
	}
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return messages
}
