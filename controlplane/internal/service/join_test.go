package service_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// knock has an agent ask to join with a token, as the join service does.
func knock(t *testing.T, w *servicetest.World, token, agent string, key byte) (fingerprint string) {
	t.Helper()
	hash := slices.Repeat([]byte{key}, 32)
	w.Do(&commandv1.Command{Body: &commandv1.Command_AskToJoin{AskToJoin: &commandv1.AskToJoin{
		TokenId: strings.Split(token, ":")[1], Agent: agent, Key: hash,
	}}})
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(hash)
}

func joinToken(t *testing.T, w *servicetest.World, zone string, seconds uint32) *apiv1.CreateJoinTokenResponse {
	t.Helper()
	r, err := w.Admin().Zones.CreateJoinToken(t.Context(), &apiv1.CreateJoinTokenRequest{Zone: zone, LifetimeSeconds: seconds})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnAgentIsLetInByItsFingerprint(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin().Zones
	fingerprint := knock(t, w, joinToken(t, w, "business", 0).GetToken(), "agent-1", 1)
	list := func() []*apiv1.JoinRequest {
		t.Helper()
		r, err := a.ListJoinRequests(t.Context(), &apiv1.ListJoinRequestsRequest{Zone: "business"})
		if err != nil {
			t.Fatal(err)
		}
		return r.GetJoinRequests()
	}
	if got := list(); len(got) != 1 || got[0].GetAgent() != "agent-1" || got[0].GetZone() != "business" || got[0].GetFingerprint() != fingerprint || got[0].GetAccepted() {
		t.Fatalf("who asks: %v", got)
	}
	accept := func(agent, fingerprint string) (*apiv1.Operation, error) {
		r, err := a.AcceptAgent(t.Context(), &apiv1.AcceptAgentRequest{Zone: "business", Agent: agent, Fingerprint: fingerprint})
		return r.GetOperation(), err
	}
	_, err := accept("agent-1", "SHA256:"+strings.Repeat("A", 43))
	refuses(t, err, problem.Invalid, "another fingerprint")
	_, err = accept("agent-2", fingerprint)
	refuses(t, err, problem.NotFound, "no agent agent-2")
	if op, err := accept("agent-1", fingerprint); err != nil || !op.GetDone() || op.GetTarget().GetName() != "business" {
		t.Fatalf("%v, %v", op, err)
	}
	if got := list(); !got[0].GetAccepted() {
		t.Fatalf("it is not in: %v", got)
	}
	if op, err := accept("agent-1", fingerprint); err != nil || op.GetSteps()[0].GetMessage() != "it was let in before" {
		t.Fatalf("accepting twice: %v, %v", op, err)
	}
}

func TestAJoinTokenLivesAsLongAsAsked(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	for seconds, want := range map[uint32]time.Duration{0: time.Hour, 60: time.Minute, 604800: 7 * 24 * time.Hour} {
		r := joinToken(t, w, "business", seconds)
		if left := time.Until(r.GetExpiresAt().AsTime()); left > want || left < want-10*time.Second {
			t.Errorf("asked for %d s, it lives %s", seconds, left)
		}
		w.View(func(tx *state.Tx) error {
			kept, err := tx.JoinToken(strings.Split(r.GetToken(), ":")[1])
			if err == nil && (kept.GetRole() != "zone" || kept.GetZoneId() != w.Zone("business").GetId() || len(kept.GetSealedSecret()) == 0) {
				t.Errorf("kept is %v", kept)
			}
			return err
		})
	}
	_, err := w.Admin().Zones.CreateJoinToken(t.Context(), &apiv1.CreateJoinTokenRequest{Zone: "business", LifetimeSeconds: 604801})
	refuses(t, err, problem.Invalid, "lifetime_seconds")
	_, err = w.Admin().Zones.CreateJoinToken(t.Context(), &apiv1.CreateJoinTokenRequest{Zone: "nowhere"})
	refuses(t, err, problem.NotFound, "no zone nowhere")
}

func TestARevokedAgentAsksNoMore(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin().Zones
	fingerprint := knock(t, w, joinToken(t, w, "business", 0).GetToken(), "agent-1", 1)
	revoke := func(agent string) (*apiv1.Operation, error) {
		r, err := a.RevokeZone(t.Context(), &apiv1.RevokeZoneRequest{Zone: "business", Agent: agent})
		return r.GetOperation(), err
	}
	_, err := revoke("agent-9")
	refuses(t, err, problem.NotFound, "no agent agent-9")
	if op, err := revoke("agent-1"); err != nil || !op.GetDone() {
		t.Fatalf("%v, %v", op, err)
	}
	if op, err := revoke("agent-1"); err != nil || op.GetSteps()[0].GetMessage() != "it was revoked before" {
		t.Fatalf("revoking twice: %v, %v", op, err)
	}
	if r, err := a.ListJoinRequests(t.Context(), &apiv1.ListJoinRequestsRequest{}); err != nil || len(r.GetJoinRequests()) != 0 {
		t.Fatalf("%v, %v", r, err)
	}
	_, err = a.AcceptAgent(t.Context(), &apiv1.AcceptAgentRequest{Zone: "business", Agent: "agent-1", Fingerprint: fingerprint})
	refuses(t, err, problem.Revoked, "has been revoked")
}

func TestAnAccessTokenIsShownOnceAndItsHashNever(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	a := w.Admin().AccessTokens
	ask := func(key string, t *apiv1.AccessToken) (*apiv1.CreateAccessTokenResponse, error) {
		return a.CreateAccessToken(with(w.Context(), "idempotency-key", key), &apiv1.CreateAccessTokenRequest{AccessToken: t})
	}
	tomorrow := timestamppb.New(time.Now().Add(24 * time.Hour))
	r, err := ask("k-1", &apiv1.AccessToken{Name: "ci", Project: "web", Zone: "business", ExpiresAt: tomorrow})
	if err != nil || !strings.HasPrefix(r.GetSecret(), "naru_") {
		t.Fatalf("%v, %v", r, err)
	}
	if got := r.GetAccessToken(); got.GetProjectId() == "" || got.GetZoneId() != w.Zone("business").GetId() || got.GetCreatedBy() != "spiffe://naru.test/admin/admin" || got.GetSecretHash() != nil {
		t.Fatalf("it is %v", got)
	}
	got, err := a.GetAccessToken(t.Context(), &apiv1.GetAccessTokenRequest{AccessToken: "ci"})
	if err != nil || got.GetAccessToken().GetSecretHash() != nil {
		t.Fatalf("%v, %v", got, err)
	}
	_, err = ask("k-1", &apiv1.AccessToken{Name: "ci", Project: "web", Zone: "business", ExpiresAt: tomorrow})
	refuses(t, err, problem.NameTaken, "shown then and is not kept")
	_, err = ask("k-2", &apiv1.AccessToken{Name: "ci", Project: "web", ExpiresAt: tomorrow})
	refuses(t, err, problem.NameTaken, "token named ci")
	_, err = ask("k-3", &apiv1.AccessToken{Name: "x", Project: "hr", ExpiresAt: tomorrow})
	refuses(t, err, problem.NotFound, "no project hr")
	_, err = ask("k-4", &apiv1.AccessToken{Name: "x", Project: "web", Zone: "nowhere", ExpiresAt: tomorrow})
	refuses(t, err, problem.NotFound, "no zone nowhere")
	for _, when := range []time.Time{time.Now().Add(-time.Minute), time.Now().AddDate(2, 0, 0)} {
		_, err = ask("k-5", &apiv1.AccessToken{Name: "x", Project: "web", ExpiresAt: timestamppb.New(when)})
		refuses(t, err, problem.Invalid, "expires_at")
	}
	me, err := w.In("web").AccessTokens.WhoAmI(t.Context(), &apiv1.WhoAmIRequest{})
	if err != nil || me.GetKind() != "access-token" || me.GetProject() != "web" {
		t.Fatalf("%v, %v", me, err)
	}
}
