package calendar_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/calendar"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// office is open from 9 to 12 and from 13 to 18 on weekdays, but for Korean holidays of late September 2026.
func office() *apiv1.Calendar {
	m := &apiv1.Calendar{TimeZone: "Asia/Seoul"}
	for day := uint32(1); day <= 5; day++ {
		m.Hours = append(m.Hours, &apiv1.Hours{Weekday: day, From: "13:00", To: "18:00"}, &apiv1.Hours{Weekday: day, From: "09:00", To: "12:00"})
	}
	for _, d := range []string{"2026-09-24", "2026-09-25"} {
		m.Holidays = append(m.Holidays, &apiv1.Holiday{Date: d, Title: "추석"})
	}
	return m
}

func compile(t interface{ Fatal(...any) }, m *apiv1.Calendar) *calendar.Calendar {
	c, err := calendar.Compile(m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(t interface{ Fatal(...any) }, zone, when string) time.Time {
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	moment, err := time.ParseInLocation("2006-01-02 15:04:05", when, location)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

func TestWorkingTimeSkipsNightsNoonWeekendsAndHolidays(t *testing.T) {
	c := compile(t, office())
	for _, test := range []struct {
		since string
		hours float64
		due   string
	}{
		{"2026-11-23 09:00:00", 3, "2026-11-23 12:00:00"},   // up to noon
		{"2026-11-23 11:00:00", 2, "2026-11-23 14:00:00"},   // over noon
		{"2026-11-23 17:30:00", 1, "2026-11-24 09:30:00"},   // over a night
		{"2026-11-20 17:00:00", 2, "2026-11-23 10:00:00"},   // over a weekend
		{"2026-11-21 12:00:00", 8, "2026-11-23 18:00:00"},   // asked on a Saturday
		{"2026-09-23 17:00:00", 4, "2026-09-28 12:00:00"},   // over 추석, which a weekend follows
		{"2026-11-23 08:59:59", 0.5, "2026-11-23 09:30:00"}, // before it opens
	} {
		want := at(t, "Asia/Seoul", test.due)
		if got := c.Due(at(t, "Asia/Seoul", test.since), time.Duration(test.hours*float64(time.Hour))); !got.Equal(want) {
			t.Errorf("%v hours from %s are due %v, not %v", test.hours, test.since, got, want)
		}
	}
}

// Where a clock is set, hours that it skips are not there, and hours that it shows twice count twice.
func TestClocksThatAreSetTakeAndGiveWorkingTime(t *testing.T) {
	night := func(zone string) *calendar.Calendar {
		m := &apiv1.Calendar{TimeZone: zone}
		for day := uint32(1); day <= 7; day++ {
			m.Hours = append(m.Hours, &apiv1.Hours{Weekday: day, From: "01:30", To: "02:30"})
		}
		return compile(t, m)
	}
	for _, test := range []struct {
		zone, day string
		want      time.Duration
	}{
		{"Europe/Berlin", "2026-03-28 00:00:00", time.Hour},
		{"Europe/Berlin", "2026-03-29 00:00:00", 30 * time.Minute},    // 02:00 becomes 03:00
		{"Europe/Berlin", "2026-10-25 00:00:00", 90 * time.Minute},    // 03:00 becomes 02:00
		{"America/New_York", "2026-11-01 00:00:00", 90 * time.Minute}, // 02:00 becomes 01:00
		{"Asia/Seoul", "1988-05-08 00:00:00", 30 * time.Minute},       // 02:00 became 03:00 for the games
		{"Australia/Lord_Howe", "2026-04-05 00:00:00", 90 * time.Minute},
		{"Asia/Seoul", "2026-03-29 00:00:00", time.Hour},
	} {
		from := at(t, test.zone, test.day)
		if got := night(test.zone).Between(from, from.AddDate(0, 0, 1)); got != test.want {
			t.Errorf("%s, the day of %s has %v, not %v", test.zone, test.day, got, test.want)
		}
	}
}

func TestWithoutACalendarEveryHourCounts(t *testing.T) {
	var none *calendar.Calendar
	now := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	if got := none.Due(now, 48*time.Hour); !got.Equal(now.Add(48 * time.Hour)) {
		t.Errorf("got %v", got)
	}
	if got := none.Between(now, now.Add(time.Hour)); got != time.Hour {
		t.Errorf("got %v", got)
	}
	if got := none.Opening(now); !got.Equal(now) {
		t.Errorf("got %v", got)
	}
}

// zones have clocks that are set by an hour and by half of one, in either half of the year, at midnight, and never.
var zones = []string{
	"Asia/Seoul", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu",
	"Africa/Casablanca", "Asia/Beirut", "America/Havana", "Pacific/Apia",
}

// aCalendar draws a calendar whose hours begin and end at whole quarters.
func aCalendar(t *rapid.T) *apiv1.Calendar {
	m := &apiv1.Calendar{TimeZone: rapid.SampledFrom(zones).Draw(t, "zone")}
	quarter := func(n int) string { return fmt.Sprintf("%02d:%02d", n/4, n%4*15) }
	for day := uint32(1); day <= 7; day++ {
		cuts := rapid.SliceOfNDistinct(rapid.IntRange(0, 96), 0, 6, rapid.ID).Draw(t, "cuts")
		slices.Sort(cuts)
		for i := 0; i+1 < len(cuts); i += 2 {
			m.Hours = append(m.Hours, &apiv1.Hours{Weekday: day, From: quarter(cuts[i]), To: quarter(cuts[i+1])})
		}
	}
	if len(m.Hours) == 0 {
		m.Hours = append(m.Hours, &apiv1.Hours{Weekday: 3, From: "09:00", To: "10:00"})
	}
	for range rapid.IntRange(0, 10).Draw(t, "holidays") {
		day := time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, rapid.IntRange(0, 16*365).Draw(t, "holiday"))
		m.Holidays = append(m.Holidays, &apiv1.Holiday{Date: day.Format(time.DateOnly)})
	}
	return m
}

func anInstant(t *rapid.T, label string) time.Time {
	return time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 16*365*24*3600).Draw(t, label)) * time.Second)
}

// working is the definition, word by word: what a clock in the zone shows.
func working(m *apiv1.Calendar, location *time.Location, t time.Time) bool {
	local := t.In(location)
	for _, h := range m.GetHolidays() {
		if h.GetDate() == local.Format(time.DateOnly) {
			return false
		}
	}
	shows := local.Format("15:04")
	for _, h := range m.GetHours() {
		if time.Weekday(h.GetWeekday()%7) == local.Weekday() && h.GetFrom() <= shows && shows < h.GetTo() {
			return true
		}
	}
	return false
}

// The time between two instants is what is found by asking the definition of each minute. All clocks that are sampled here
// are off UTC by whole minutes.
func TestWorkingTimeIsWhatAClockOnTheWallShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := aCalendar(t)
		c := compile(t, m)
		location, err := time.LoadLocation(m.GetTimeZone())
		if err != nil {
			t.Fatal(err)
		}
		from := anInstant(t, "from").Truncate(time.Minute)
		to := from.Add(time.Duration(rapid.IntRange(0, 10*24*60).Draw(t, "minutes")) * time.Minute)
		var want time.Duration
		for now := from; now.Before(to); now = now.Add(time.Minute) {
			if working(m, location, now) {
				want += time.Minute
			}
		}
		if got := c.Between(from, to); got != want {
			t.Fatalf("from %v to %v it is %v, and by the clock %v", from.In(location), to.In(location), got, want)
		}
	})
}

// What is due is due once all its working time has passed, and not a moment before.
func TestDueIsTheFirstInstantAtWhichTheTimeHasPassed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := compile(t, aCalendar(t))
		since := anInstant(t, "since")
		takes := time.Duration(rapid.Int64Range(1, 200*3600).Draw(t, "seconds")) * time.Second
		due := c.Due(since, takes)
		if got := c.Between(since, due); got != takes {
			t.Fatalf("until %v, %v have passed, not %v", due, got, takes)
		}
		if got := c.Between(since, due.Add(-time.Second)); got != takes-time.Second {
			t.Fatalf("a second earlier %v have passed", got)
		}
		more := time.Duration(rapid.Int64Range(0, 100*3600).Draw(t, "more")) * time.Second
		if a, b := c.Due(since, takes+more), c.Due(due, more); more > 0 && !a.Equal(b) {
			t.Fatalf("in two parts it is due %v, in one %v", b, a)
		}
		if opening := c.Opening(since); c.Between(since, opening) != 0 || c.Between(opening, opening.Add(time.Second)) != time.Second {
			t.Fatalf("it does not open at %v", opening)
		}
	})
}

func TestEachWrongFieldOfACalendarIsNamed(t *testing.T) {
	for field, m := range map[string]*apiv1.Calendar{
		"time_zone":        {TimeZone: "Asia/Nowhere", Hours: office().Hours},
		"time_zone takes":  {TimeZone: "Local", Hours: office().Hours},
		"hours are":        {TimeZone: "Asia/Seoul"},
		"hours[0]":         {TimeZone: "Asia/Seoul", Hours: []*apiv1.Hours{{Weekday: 1, From: "18:00", To: "09:00"}}},
		"hours[0].weekday": {TimeZone: "Asia/Seoul", Hours: []*apiv1.Hours{{Weekday: 8, From: "09:00", To: "18:00"}}},
		"overlap on Monday": {TimeZone: "Asia/Seoul", Hours: []*apiv1.Hours{
			{Weekday: 1, From: "09:00", To: "18:00"}, {Weekday: 1, From: "17:00", To: "24:00"},
		}},
		"holidays[0].date": {TimeZone: "Asia/Seoul", Hours: office().Hours, Holidays: []*apiv1.Holiday{{Date: "2026-02-30"}}},
	} {
		if _, err := calendar.Compile(m); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetDetail(), field) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
}

// Whatever a calendar holds, and however sparse it is, the answer comes.
func TestASparseCalendarIsReckonedFarAhead(t *testing.T) {
	m := &apiv1.Calendar{TimeZone: "Asia/Seoul", Hours: []*apiv1.Hours{{Weekday: 1, From: "09:00", To: "10:00"}}}
	since := at(t, "Asia/Seoul", "2026-11-23 09:00:00")
	if got, want := compile(t, m).Due(since, 521*time.Hour), since.AddDate(0, 0, 7*520).Add(time.Hour); !got.Equal(want) {
		t.Errorf("ten years of Mondays are over %v, not %v", got, want)
	}
}
