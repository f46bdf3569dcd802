package pki_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/pkg/pki"
)

func TestTheFirstCertificateIsAskedForAtOnceAndTheNextAtTwoThirds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "naru.test", time.Now())
		h := must(pki.LoadOrCreate(t.TempDir(), "link"))
		var asked []time.Time
		stop := runHolder(t, h, func(_ context.Context, csr []byte) ([][]byte, error) {
			asked = append(asked, time.Now())
			return f.links.Issue(must(pki.KeyOfCSR(csr)), f.agent(t, "z1", "a1"), pki.IssueOptions{Now: time.Now()})
		})
		start := time.Now()
		time.Sleep(40 * time.Hour)
		stop()
		if len(asked) < 3 || !asked[0].Equal(start) {
			t.Fatalf("asked at %v", asked)
		}
		for i, at := range asked[1:] {
			if after := at.Sub(asked[i]); after < 14*time.Hour || after > 16*time.Hour {
				t.Errorf("renewed after %s of 24 h", after)
			}
		}
	})
}

func TestAHolderThatIsRefusedAsksEverMoreSlowlyAndNeverGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "naru.test", time.Now())
		h := must(pki.LoadOrCreate(t.TempDir(), "link"))
		id := f.agent(t, "z1", "a1")
		if err := h.Set(must(f.links.Issue(h.Key().Public(), id, pki.IssueOptions{Now: time.Now()}))); err != nil {
			t.Fatal(err)
		}
		healed := time.Now().Add(90 * 24 * time.Hour)
		tries := 0
		stop := runHolder(t, h, func(_ context.Context, csr []byte) ([][]byte, error) {
			if tries++; time.Now().Before(healed) {
				return nil, errors.New("the link is cut")
			}
			return renewal(f, h.Chain(), csr, time.Now())
		})
		time.Sleep(90 * 24 * time.Hour)
		if h.Peer() == nil || !h.Peer().Expired {
			t.Errorf("after 90 days without a link: %+v", h.Peer())
		}
		time.Sleep(10 * time.Minute)
		stop()
		if peer, err := pki.Verify(h.Chain(), f.rootCert(), time.Now(), pki.RoleAgent); err != nil || peer.ID != id {
			t.Errorf("ten minutes after the link came back: %+v, %v", peer, err)
		}
		if perDay := tries / 90; perDay < 200 || perDay > 600 {
			t.Errorf("%d tries a day", perDay)
		}
	})
}

// P13: ten years, in which links are cut, clocks jump, and every intermediate is replaced.
func TestP13TenYearsOfRotationNeedNoHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "naru.test", time.Now())
		random := rand.New(rand.NewPCG(1, 2))
		var skew time.Duration
		h := must(pki.LoadOrCreate(t.TempDir(), "link", pki.WithClock(func() time.Time { return time.Now().Add(skew) })))
		id := f.agent(t, "z1", "a1")
		if err := h.Set(must(f.links.Issue(h.Key().Public(), id, pki.IssueOptions{Now: time.Now()}))); err != nil {
			t.Fatal(err)
		}
		cut, renewals := false, 0
		stop := runHolder(t, h, func(_ context.Context, csr []byte) ([][]byte, error) {
			if cut {
				return nil, errors.New("the link is cut")
			}
			chain, err := renewal(f, h.Chain(), csr, time.Now())
			if err == nil {
				renewals++
			}
			return chain, err
		})
		for range 10 * 12 {
			time.Sleep(29 * 24 * time.Hour)
			switch random.IntN(4) {
			case 0:
				cut = true
				time.Sleep(48 * time.Hour)
			case 1:
				skew = time.Duration(random.Int64N(int64(20*aYear)) - int64(10*aYear))
				time.Sleep(6 * time.Hour)
			}
			cut, skew = false, 0
			time.Sleep(30 * time.Minute)
			if peer, err := pki.Verify(h.Chain(), f.rootCert(), time.Now(), pki.RoleAgent); err != nil || peer.ID != id {
				t.Fatalf("at %s: %+v, %v", time.Now(), peer, err)
			}
			for _, a := range []**pki.Authority{&f.links, &f.servers} {
				if (*a).Due(time.Now()) {
					*a = must(pki.NewAuthority((*a).Role, f.name, f.root, time.Now()))
				}
			}
		}
		stop()
		if renewals < 3650*24/16 {
			t.Errorf("%d renewals in ten years", renewals)
		}
	})
}

func TestACertificateThatIsDueAtOnceIsNotAskedForInACircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "naru.test", time.Now())
		// This holder's clock is a year ahead: whatever it is given, it holds for expired.
		h := must(pki.LoadOrCreate(t.TempDir(), "link", pki.WithClock(func() time.Time { return time.Now().Add(365 * 24 * time.Hour) })))
		asked := 0
		stop := runHolder(t, h, func(_ context.Context, csr []byte) ([][]byte, error) {
			asked++
			return f.links.Issue(must(pki.KeyOfCSR(csr)), f.agent(t, "z1", "a1"), pki.IssueOptions{Now: time.Now()})
		})
		time.Sleep(time.Hour)
		stop()
		if asked > 60 {
			t.Errorf("asked %d times in an hour", asked)
		}
	})
}

// runHolder runs a holder until stop is called, which checks that it ends with its context's cause.
func runHolder(t *testing.T, h *pki.Holder, renew func(context.Context, []byte) ([][]byte, error)) (stop func()) {
	t.Helper()
	cause := errors.New("the test is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx, renew) }()
	return func() {
		t.Helper()
		cancel(cause)
		if err := <-ended; !errors.Is(err, cause) {
			t.Errorf("Run ended with %v", err)
		}
	}
}
