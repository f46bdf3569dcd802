package dial

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
)

var errNoWay = errors.New("no way there")

func nowhere(context.Context, string) (net.Conn, error) { return nil, errNoWay }

func newHolder(t *testing.T) *pki.Holder {
	t.Helper()
	h, err := pki.LoadOrCreate(t.TempDir(), "link")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestADialerThatLacksSomethingIsNotMade(t *testing.T) {
	h := newHolder(t)
	for name, c := range map[string]Config{
		"no address":              {Holder: h},
		"no holder":               {Addresses: []string{"broker.test:8443"}},
		"an address without port": {Addresses: []string{"broker.test"}, Holder: h},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func TestWhoHasNotJoinedNeitherRenewsNorConnects(t *testing.T) {
	d, err := New(Config{Addresses: []string{"broker.test:8443"}, Holder: newHolder(t), DialContext: nowhere})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Renew(t.Context(), nil); !errors.Is(err, pki.ErrNoCertificate) {
		t.Errorf("renew: %v", err)
	}
	if _, err := d.Connect(t.Context()); !errors.Is(err, pki.ErrNoCertificate) {
		t.Errorf("connect: %v", err)
	}
}

func TestEveryAddressIsTriedAndItsFailureNamed(t *testing.T) {
	authority, err := pki.NewAuthority(pki.AuthorityRoot, "naru.test", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	links, err := pki.NewAuthority(pki.AuthorityLinks, "naru.test", authority, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := newHolder(t)
	id, err := pki.AgentID("naru.test", "z1", "a1")
	if err != nil {
		t.Fatal(err)
	}
	chain, err := links.Issue(h.Key().Public(), id, pki.IssueOptions{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Set(chain); err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	d, err := New(Config{Addresses: []string{"one.test:1", "two.test:2"}, Holder: h, DialContext: func(_ context.Context, address string) (net.Conn, error) {
		tried[address] = true
		return nil, errNoWay
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Renew(t.Context(), []byte("csr")); err == nil || !tried["one.test:1"] || !tried["two.test:2"] {
		t.Errorf("tried %v: %v", tried, err)
	}
}

func TestWhatPassesIsAskedAgainAndWhatDoesNotIsNot(t *testing.T) {
	for code, want := range map[codes.Code]bool{
		codes.Unavailable: true, codes.ResourceExhausted: true, codes.DeadlineExceeded: true,
		codes.PermissionDenied: false, codes.InvalidArgument: false, codes.NotFound: false, codes.FailedPrecondition: false,
		codes.Unauthenticated: false,
	} {
		if passing(status.Error(code, "")) != want {
			t.Errorf("%s: want %v", code, want)
		}
	}
}
