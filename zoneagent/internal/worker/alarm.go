package worker

import (
	"container/heap"
	"time"
)

// alarms tells which machine is to be looked at next. An entry counts only while the machine's wake says the same.
type alarms []alarm

type alarm struct {
	at time.Time
	id string
}

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	*a = (*a)[:last]
	return x
}

// set has a machine looked at no later than a time. What is to be looked at sooner already asks for it again then.
func (a *alarms) set(m *machine, at time.Time) {
	if !m.wake.IsZero() && !at.Before(m.wake) {
		return
	}
	m.wake = at
	heap.Push(a, alarm{at, m.id})
}

// due takes out what is to be looked at by now.
func (a *alarms) due(now time.Time, fn func(id string, at time.Time)) {
	for len(*a) > 0 && !(*a)[0].at.After(now) {
		x := heap.Pop(a).(alarm)
		fn(x.id, x.at)
	}
}
