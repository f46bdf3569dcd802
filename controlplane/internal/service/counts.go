package service

import "time"

// writeEvery is how often a server writes into the record what comes often and is alike.
const writeEvery = time.Minute

// counts counts what comes often, by what it has in common: one of a kind is written at once and then one a minute, with how many came
// between. What is counted and not yet written is lost with the server; the first of a kind never is.
type counts[K comparable] map[K]counted

type counted struct {
	// since is when one was written last; zero where none was.
	since time.Time
	count uint32
}

// due reports whether one of a kind is to be written now, with how many were counted since the last. Where it is not, it is counted.
func (c counts[K]) due(k K, now time.Time) (told uint32, due bool) {
	was := c[k]
	if now.Sub(was.since) >= writeEvery {
		return was.count, true
	}
	was.count++
	c[k] = was
	return 0, false
}

// written notes that one of a kind stands in the log, which tells of so many others.
func (c counts[K]) written(k K, told uint32, now time.Time) {
	c[k] = counted{since: now, count: c[k].count - min(told, c[k].count)}
}

// forget drops kinds of which none was written for so long. What was counted of them is told with the next of the kind that rest names.
func (c counts[K]) forget(now time.Time, after time.Duration, rest func(K) K) {
	for k, was := range c {
		if now.Sub(was.since) < after || was.count > 0 && k == rest(k) {
			continue
		}
		delete(c, k)
		if was.count > 0 {
			sum := c[rest(k)]
			c[rest(k)] = counted{since: sum.since, count: sum.count + was.count}
		}
	}
}
