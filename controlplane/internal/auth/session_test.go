package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func (w *world) Session(_ context.Context, id string) (*apiv1.Session, error) {
	if s, ok := w.sessions[id]; ok {
		return s, nil
	}
	return nil, problem.New(problem.NotFound, "there is no session "+id, "")
}

// session begins a session of kim's at zone internet, and returns what its bearer sends.
func (w *world) session() (s *apiv1.Session, text string) {
	id, secret := uuid.Must(uuid.NewV7()), bytes.Repeat([]byte{5}, secretSize)
	hash := sha256.Sum256(secret)
	s = &apiv1.Session{
		Id: id.String(), User: "kim", UserId: "u-kim", Zone: "internet", ZoneId: "z-internet", Strength: apiv1.Session_TWO_FACTORS,
		SecretHash: hash[:], ExpiresAt: timestamppb.New(w.now.Add(time.Hour)),
	}
	w.sessions = map[string]*apiv1.Session{s.GetId(): s}
	return s, sessionPrefix + base64.RawURLEncoding.EncodeToString(append(id[:], secret...))
}

func TestTheBearerOfASessionIsItsUser(t *testing.T) {
	w := newWorld(t)
	s, text := w.session()
	p, err := w.Authenticate(t.Context(), Credentials{Authorization: "Bearer " + text, ViaZone: "z-internet"})
	if err != nil || p.Kind != User || p.Actor != "user:kim" || p.UserID != "u-kim" || p.ID != "u-kim" || p.SessionID != s.GetId() || p.Strength != apiv1.Session_TWO_FACTORS {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := w.Recheck(t.Context(), p); err != nil {
		t.Errorf("while it lasts: %v", err)
	}
	delete(w.sessions, s.GetId())
	if err := w.Recheck(t.Context(), p); !problem.Is(err, problem.TokenInvalid) {
		t.Errorf("after it was ended: %v", err)
	}
}

func TestABadSessionIsRefusedWithTheReason(t *testing.T) {
	w := newWorld(t)
	s, text := w.session()
	other := text[:len(text)-2] + "AA"
	for name, c := range map[string]struct {
		text, via string
		after     time.Duration
		code      problem.Code
	}{
		"with another secret":      {other, "z-internet", 0, problem.TokenInvalid},
		"at another zone":          {text, "z-business", 0, problem.Forbidden},
		"in the control network":   {text, "", 0, problem.Forbidden},
		"when it has ended":        {text, "z-internet", time.Hour, problem.TokenExpired},
		"without its last letters": {text[:len(text)-4], "z-internet", 0, problem.TokenInvalid},
	} {
		w.now = s.GetExpiresAt().AsTime().Add(c.after - time.Hour)
		if p, err := w.Authenticate(t.Context(), Credentials{Authorization: "Bearer " + c.text, ViaZone: c.via}); !problem.Is(err, c.code) || p.Kind != "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestWhoHasToChangeThePasswordMayDoNothingElse(t *testing.T) {
	w := newWorld(t)
	s, text := w.session()
	s.MustChangePassword = true
	p, err := w.Authenticate(t.Context(), Credentials{Authorization: "Bearer " + text, ViaZone: "z-internet"})
	if err != nil {
		t.Fatal(err)
	}
	for method, allowed := range map[string]bool{
		apiv1.UserService_ChangePassword_FullMethodName: true, apiv1.SessionService_LogOut_FullMethodName: true,
		apiv1.VMService_ListVMs_FullMethodName: false, apiv1.UserService_EnrollAuthenticator_FullMethodName: false, apiv1.SessionService_StepUp_FullMethodName: false,
	} {
		if err := p.Restricted(method); (err == nil) != allowed || err != nil && !problem.Is(err, problem.MustChangePassword) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestAnAccessTokenIsNeverTakenForASession though its text may begin like one.
func TestAnAccessTokenIsNeverTakenForASession(t *testing.T) {
	raw := bytes.Repeat([]byte{0xff}, 16+secretSize)
	raw[0], raw[1] = 0xb3, 0xf0 // s_… in base64url
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
	if len(text) < len(sessionPrefix) || text[:len(sessionPrefix)-1] != sessionPrefix[:len(sessionPrefix)-1] {
		t.Fatalf("%s does not begin like a session's", text[:8])
	}
	if isSession(text) {
		t.Error("it is taken for a session's")
	}
}
