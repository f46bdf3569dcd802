package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// keeper keeps its keys in the open.
type keeper struct{ private map[string]string }

func (k *keeper) NewAuditKey(federation, after string) (*commandv1.AddAuditKey, error) {
	private, public, err := audit.NewKey(audit.Origin(federation))
	k.private[public] = private
	return &commandv1.AddAuditKey{Key: &commandv1.AuditKey{PublicKey: public, SealedKey: []byte("sealed")}, After: after}, err
}

type signing struct {
	*Checkpoints
	*servicetest.World
	*keeper
	now time.Time
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	s := &signing{World: servicetest.New(t), keeper: &keeper{private: map[string]string{}}, now: time.Now()}
	s.NewSite(1)
	s.Checkpoints = New(Config{Reader: s.DB, Proposer: s.World, Keeper: s, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now }})
	return s
}

func (s *signing) AuditKey(ctx context.Context) (private, public string, err error) {
	err = s.DB.View(ctx, func(tx *state.Tx) error {
		ring, err := tx.Keyring()
		if n := len(ring.GetAuditKeys()); err == nil && n > 0 {
			public = ring.GetAuditKeys()[n-1].GetPublicKey()
		}
		return err
	})
	return s.private[public], public, err
}

func (s *signing) newest(t *testing.T) (c *apiv1.AuditCheckpoint, size uint64) {
	t.Helper()
	err := s.DB.View(t.Context(), func(tx *state.Tx) (err error) {
		if size, err = tx.AuditSize(); err != nil {
			return err
		}
		c, err = tx.Checkpoint()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, size
}

func TestTheLogIsSignedWhenItHasGrown(t *testing.T) {
	s := newSigning(t)
	for range 2 { // the second time there is nothing to sign
		if err := s.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first, size := s.newest(t)
	_, public, err := s.AuditKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := audit.Open(first.GetNote(), []string{public})
	if err != nil || c.Size != size || !bytes.Equal(c.Root[:], first.GetRoot()) || c.Epoch == 0 {
		t.Fatalf("%+v of %d entries, %v", c, size, err)
	}
	proposed := s.Proposes()
	if err := s.turn(t.Context()); err != nil || s.Proposes() != proposed {
		t.Fatalf("a log that has not grown cost %d commands, %v", s.Proposes()-proposed, err)
	}
	if _, err := s.Admin().Projects.CreateProject(t.Context(), &apiv1.CreateProjectRequest{Project: &apiv1.Project{Name: "more"}}); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Minute)
	if err := s.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if next, size := s.newest(t); next.GetSize() == first.GetSize() || size <= c.Size {
		t.Errorf("the log grew to %d and is signed up to %s", size, next.GetSize())
	}
}

func TestItIsLookedAtEveryTenSeconds(t *testing.T) {
	s := newSigning(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*every+every/2)
		defer cancel()
		looks := 0
		c := *s.Checkpoints
		c.Reader = counting{&looks}
		// Each turn looks for what is to be signed, and for whom it is to be shown to.
		if err := c.Run(ctx); err != context.DeadlineExceeded || looks != 4*2 {
			t.Errorf("%d looks, %v", looks, err)
		}
	})
}

type counting struct{ looks *int }

func (c counting) View(context.Context, func(*state.Tx) error) error { *c.looks++; return nil }

// TestZonesAreShownWhatIsSigned, each once a minute, and what has not changed not again.
func TestZonesAreShownWhatIsSigned(t *testing.T) {
	s := newSigning(t)
	offered := func() (all []string) {
		if err := s.DB.View(t.Context(), func(tx *state.Tx) error {
			known, err := tx.Witnesses()
			for _, w := range known {
				all = append(all, w.GetZone()+" "+strconv.FormatUint(w.Offered, 10))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, zone := range []string{"internet", "business"} {
		s.Connect(s.Zone(zone).GetId(), true)
	}
	if err := s.offer(t.Context()); err != nil || offered() != nil {
		t.Fatalf("before anything is signed %v are shown something, %v", offered(), err)
	}
	if err := errors.Join(s.turn(t.Context()), s.offer(t.Context())); err != nil {
		t.Fatal(err)
	}
	first, size := s.newest(t)
	if want := []string{"business " + first.GetSize(), "internet " + first.GetSize()}; !slices.Equal(offered(), want) {
		t.Fatalf("%q are shown it, want %q", offered(), want)
	}
	proposed := s.Proposes()
	for _, later := range []time.Duration{0, 2 * time.Minute} { // at once, and when there is nothing new
		s.now = s.now.Add(later)
		if err := s.offer(t.Context()); err != nil || s.Proposes() != proposed {
			t.Errorf("%d more were proposed, %v", s.Proposes()-proposed, err)
		}
	}
	if _, is := s.newest(t); is != size {
		t.Errorf("showing it made the log grow by %d", is-size)
	}
}

// TestWhatWasSignedBeforeARestoreIsNotShown: a zone may have seen more of that epoch.
func TestWhatWasSignedBeforeARestoreIsNotShown(t *testing.T) {
	s := newSigning(t)
	s.Connect(s.Zone("business").GetId(), true)
	if err := s.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	var epoch uint64
	if err := s.DB.View(t.Context(), func(tx *state.Tx) error { epoch = tx.Meta().Epoch; return nil }); err != nil {
		t.Fatal(err)
	}
	s.Do(&commandv1.Command{Body: &commandv1.Command_BeginEpoch{BeginEpoch: &commandv1.BeginEpoch{Epoch: epoch + 1, EpochId: make([]byte, 16), Reason: "restored"}}})
	proposed := s.Proposes()
	if err := s.offer(t.Context()); err != nil || s.Proposes() != proposed {
		t.Errorf("it is shown, %v", err)
	}
	s.now = s.now.Add(time.Minute)
	if err := errors.Join(s.turn(t.Context()), s.offer(t.Context())); err != nil || s.Proposes() != proposed+2 {
		t.Errorf("what is signed after it is not, %v", err)
	}
}
