package service

import (
	"strconv"
	"testing"
	"time"
)

// TestReadsThatAskTheSameAreOneKindForAMinute, with their number in the next; and who asks for many things is one kind in
// the end.
func TestReadsThatAskTheSameAreOneKindForAMinute(t *testing.T) {
	r, now := &reads{}, time.Unix(1e9, 0)
	kim, lee := reader{actor: "user:kim", action: "user.list"}, reader{actor: "user:lee", action: "user.list"}
	written := 0
	read := func(who reader, question string) (told uint32, entry bool) {
		k, told, recent := r.like(who, question, now)
		if recent {
			return 0, false
		}
		r.written(k, told, now)
		written++
		return told, true
	}
	for range 60 {
		read(kim, "all of them")
		now = now.Add(time.Second)
	}
	if _, entry := read(lee, "all of them"); written != 2 || !entry {
		t.Errorf("60 reads a second apart by one and one by another are %d entries", written)
	}
	if told, entry := read(kim, "all of them"); !entry || told != 59 {
		t.Errorf("a minute later the entry, %t, tells of %d others", entry, told)
	}

	// One that was asked before and not after is told with the rest.
	read(kim, "all of them")
	now, written = now.Add(2*time.Minute), 0
	for n := range 200 {
		read(kim, strconv.Itoa(n))
	}
	if written != maxQuestions+1 {
		t.Errorf("200 questions within a moment are %d entries", written)
	}
	now = now.Add(2 * time.Minute)
	told := uint32(0)
	for n := range maxQuestions + 1 {
		more, _ := read(kim, "again "+strconv.Itoa(n))
		told += more
	}
	if told != 200-maxQuestions-1 {
		t.Errorf("of 200 questions %d entries tell later of %d", maxQuestions+1, told)
	}

	// What could not be written is not taken for written.
	if _, _, recent := r.like(lee, "who else", now); recent {
		t.Error("the first of a kind is let through without an entry")
	}
	if _, _, recent := r.like(lee, "who else", now); recent {
		t.Error("the second is, whose first could not be written")
	}

	// Nothing is kept of who asks no more, but of what is still to be told.
	now = now.Add(3 * time.Minute)
	read(lee, "all of them")
	if len(r.of[lee]) != 1 || len(r.of[kim]) > 1 {
		t.Errorf("%d questions are known of kim, and %d of lee", len(r.of[kim]), len(r.of[lee]))
	}
}
