package members

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func start(t *testing.T, name, address string, key []byte, join ...string) *Members {
	t.Helper()
	m, err := New(Config{
		Name: name, Address: address, Key: key, Join: join, Quick: true, Log: slog.New(slog.DiscardHandler),
		Self: Member{Agent: address, EtcdPeer: "10.0.0.1:2380", Version: "v1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	go m.Run(t.Context())
	t.Cleanup(func() { m.Close() })
	return m
}

// await waits until what is known of the members says so.
func await(t *testing.T, m *Members, what string, ok func([]Member) bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		if ok(m.Members()) {
			return
		}
		select {
		case <-m.Changed():
		case <-deadline:
			t.Fatalf("never: %s; there are %+v", what, m.Members())
		}
	}
}

func alive(members []Member) string {
	var names []string
	for _, m := range members {
		if m.Alive {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, " ")
}

var key = bytes.Repeat([]byte{7}, 32)

func TestAgentsFindOneAnotherAndNoticeWhoIsGone(t *testing.T) {
	first := free(t)
	a := start(t, "a", first, key)
	b := start(t, "b", free(t), key, first)
	c := start(t, "c", free(t), key, first)
	for _, m := range []*Members{a, b, c} {
		await(t, m, "all three", func(all []Member) bool { return alive(all) == "a b c" })
	}
	if got := a.Members(); got[1].Agent == "" || got[1].EtcdPeer != "10.0.0.1:2380" || got[1].Version != "v1" {
		t.Fatalf("what b tells of itself is lost: %+v", got[1])
	}
	c.closing.Do(func() { c.closed = c.list.Shutdown() }) // dies without a word
	await(t, a, "c is gone", func(all []Member) bool { return alive(all) == "a b" && len(all) == 3 })
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, a, "b has left", func(all []Member) bool { return alive(all) == "a" })
}

func TestAnAgentOfAnotherZoneIsNotHeard(t *testing.T) {
	first := free(t)
	a := start(t, "a", first, key)
	other := start(t, "x", free(t), bytes.Repeat([]byte{8}, 32))
	if _, err := other.list.Join([]string{first}); err == nil {
		t.Fatal("it joined without the zone's key")
	}
	if slices.ContainsFunc(a.Members(), func(m Member) bool { return m.Name == "x" }) {
		t.Fatal("it is known")
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(Config{Name: "a", Address: l.Addr().String(), Key: key, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(l.Addr())) {
		t.Fatalf("got %v", err)
	}
}
