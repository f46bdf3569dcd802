package service

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/calendar"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type calendarService struct {
	apiv1.UnimplementedCalendarServiceServer
	*Service
}

func calendarChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Calendar) proto.Message {
	return &apiv1.WatchCalendarsResponse{Type: kind, Revision: revision, Calendar: m}
}

func (s calendarService) ListCalendars(ctx context.Context, r *apiv1.ListCalendarsRequest) (*apiv1.ListCalendarsResponse, error) {
	items, next, err := s.calendars.list(ctx, r, place{})
	return &apiv1.ListCalendarsResponse{Calendars: items, NextPageToken: next}, err
}

func (s calendarService) GetCalendar(ctx context.Context, r *apiv1.GetCalendarRequest) (*apiv1.GetCalendarResponse, error) {
	m, err := s.calendars.get(ctx, r.GetCalendar(), place{})
	return &apiv1.GetCalendarResponse{Calendar: m}, err
}

func (s calendarService) WatchCalendars(r *apiv1.WatchCalendarsRequest, stream grpc.ServerStreamingServer[apiv1.WatchCalendarsResponse]) error {
	return s.calendars.watch(r, place{}, stream)
}

func (s calendarService) CreateCalendar(ctx context.Context, r *apiv1.CreateCalendarRequest) (*apiv1.CreateCalendarResponse, error) {
	result, err := s.calendars.create(ctx, r, r.GetCalendar(), func(tx *state.Tx, m *apiv1.Calendar) (state.Scope, error) {
		return nil, reckons(tx, m)
	}, func(c *commandv1.Command, m *apiv1.Calendar) {
		c.Body = &commandv1.Command_CreateCalendar{CreateCalendar: &commandv1.CreateCalendar{Calendar: m}}
	})
	op, err := s.calendars.made(ctx, result, err)
	return &apiv1.CreateCalendarResponse{Operation: op}, err
}

// reckons refuses a calendar that nothing can be reckoned by.
func reckons(_ *state.Tx, m *apiv1.Calendar) error {
	_, err := calendar.Compile(m)
	return err
}

func (s calendarService) UpdateCalendar(ctx context.Context, r *apiv1.UpdateCalendarRequest) (*apiv1.UpdateCalendarResponse, error) {
	m, err := s.calendars.update(ctx, r, r.GetCalendar(), r.GetUpdateMask(), place{}, reckons, func(c *commandv1.Command, m *apiv1.Calendar, expected string) {
		c.Body = &commandv1.Command_UpdateCalendar{UpdateCalendar: &commandv1.UpdateCalendar{Calendar: m, ExpectedRevision: expected}}
	})
	return &apiv1.UpdateCalendarResponse{Calendar: m}, err
}

func (s calendarService) DeleteCalendar(ctx context.Context, r *apiv1.DeleteCalendarRequest) (*apiv1.DeleteCalendarResponse, error) {
	op, err := s.calendars.remove(ctx, r, r.GetCalendar(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteCalendar{DeleteCalendar: d}
	})
	return &apiv1.DeleteCalendarResponse{Operation: op}, err
}
