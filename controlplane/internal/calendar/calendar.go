// Package calendar reckons in working time: when something is due that may take so many working hours. It is pure: the same
// calendar and instants give the same answer, on any machine, since the rules of time zones are built in.
//
// An instant is working when a clock in the calendar's time zone shows, on a day that is no holiday, a time within one of the
// hours of that weekday: from its beginning, up to and without its end. That stays clear where clocks are set. Hours that a
// clock jumps over are not there that day; hours that it shows twice count twice.
package calendar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // not every server has the rules of time zones on its disk

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Calendar says when people work. Every instant is working in one that is nil. It is safe for concurrent use.
type Calendar struct {
	zone     *time.Location
	week     [7][]span // by time.Weekday, in order, without overlap
	holidays map[date]struct{}
}

// span is a part of a day, in seconds since a clock showed 00:00.
type span struct{ from, to int }

type date struct {
	year  int
	month time.Month
	day   int
}

const secondsOfDay = 24 * 60 * 60

// Compile reads a calendar. The error is a problem INVALID that names each field.
func Compile(m *apiv1.Calendar) (*Calendar, error) {
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	c := &Calendar{holidays: map[date]struct{}{}}
	var err error
	// LoadLocation takes "" and "Local" for zones, too; they would mean another one on each server.
	switch name := m.GetTimeZone(); {
	case name == "" || name == "Local":
		e.With("time_zone", "takes the name of a time zone: Asia/Seoul")
	default:
		if c.zone, err = time.LoadLocation(name); err != nil {
			e.With("time_zone", "there is no time zone "+name+"; take a name as Asia/Seoul")
		}
	}
	for i, h := range m.GetHours() {
		field := fmt.Sprintf("hours[%d]", i)
		from, ok := clock(h.GetFrom())
		to, ok2 := clock(h.GetTo())
		switch {
		case h.GetWeekday() < 1 || h.GetWeekday() > 7:
			e.With(field+".weekday", "is 1 for Monday to 7 for Sunday")
		case !ok || !ok2 || from >= to:
			e.With(field, "takes times as HH:MM, the first before the second")
		default:
			day := time.Weekday(h.GetWeekday() % 7)
			c.week[day] = append(c.week[day], span{from, to})
		}
	}
	for day := range c.week {
		slices.SortFunc(c.week[day], func(a, b span) int { return cmp.Compare(a.from, b.from) })
		for i, s := range c.week[day] {
			if i > 0 && s.from < c.week[day][i-1].to {
				e.With("hours", "overlap on "+time.Weekday(day).String())
			}
		}
	}
	if len(m.GetHours()) == 0 {
		e.With("hours", "are required: with none, nothing would ever be due")
	}
	for i, h := range m.GetHolidays() {
		t, err := time.Parse(time.DateOnly, h.GetDate())
		if err != nil {
			e.With(fmt.Sprintf("holidays[%d].date", i), "is no day as 2026-12-25")
			continue
		}
		c.holidays[date{t.Year(), t.Month(), t.Day()}] = struct{}{}
	}
	if len(e.Problem.GetErrors()) > 0 {
		var said []string
		for _, f := range e.Problem.GetErrors() {
			said = append(said, f.GetField()+" "+f.GetDetail())
		}
		e.Problem.Detail = strings.Join(said, "; ")
		return nil, e
	}
	return c, nil
}

// clock reads HH:MM in seconds; 24:00 is the end of the day.
func clock(s string) (seconds int, ok bool) {
	if s == "24:00" {
		return secondsOfDay, true
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != 5 {
		return 0, false
	}
	return t.Hour()*3600 + t.Minute()*60, true
}

// Due returns when so much working time has passed since an instant, counted in whole seconds: the first such instant. It is
// the instant itself for no working time, even where nobody works then.
func (c *Calendar) Due(since time.Time, working time.Duration) time.Time {
	if c == nil || working <= 0 {
		return since.Add(max(working, 0))
	}
	left := working
	for from, to := range c.from(since) {
		if left <= to.Sub(from) {
			return from.Add(left).UTC()
		}
		left -= to.Sub(from)
	}
	panic("a calendar without end ended")
}

// Between returns how much working time lies between two instants; none where the second is not after the first.
func (c *Calendar) Between(from, to time.Time) (working time.Duration) {
	if c == nil {
		return max(to.Sub(from), 0)
	}
	for begin, end := range c.from(from) {
		if !begin.Before(to) {
			break
		}
		if end.After(to) {
			end = to
		}
		working += end.Sub(begin)
	}
	return working
}

// Opening returns the first working instant at or after t.
func (c *Calendar) Opening(t time.Time) time.Time {
	if c == nil {
		return t
	}
	for from := range c.from(t) {
		return from.UTC()
	}
	panic("a calendar without end ended")
}

// from goes through the stretches of working time from an instant on, in order. It does not end: a calendar has hours on some
// weekday, and its holidays are finite.
func (c *Calendar) from(t time.Time) func(yield func(from, to time.Time) bool) {
	return func(yield func(from, to time.Time) bool) {
		t = t.In(c.zone)
		for {
			// Up to the next midnight or the next change of the clocks, whichever is first, local time runs evenly.
			hour, minute, second := t.Clock()
			shown := hour*3600 + minute*60 + second
			until := t.Add(time.Duration(secondsOfDay-shown)*time.Second - time.Duration(t.Nanosecond()))
			if _, change := t.ZoneBounds(); !change.IsZero() && change.Before(until) {
				until = change
			}
			// What the clock would show at midnight of this day, were it never set.
			midnight := t.Add(-time.Duration(shown)*time.Second - time.Duration(t.Nanosecond()))
			for _, s := range c.hoursOf(t) {
				from, to := midnight.Add(time.Duration(s.from)*time.Second), midnight.Add(time.Duration(s.to)*time.Second)
				if from.Before(t) {
					from = t
				}
				if to.After(until) {
					to = until
				}
				if from.Before(to) && !yield(from, to) {
					return
				}
			}
			t = until
		}
	}
}

// hoursOf returns the hours of the local day of t.
func (c *Calendar) hoursOf(t time.Time) []span {
	year, month, day := t.Date()
	if _, free := c.holidays[date{year, month, day}]; free {
		return nil
	}
	return c.week[t.Weekday()]
}
