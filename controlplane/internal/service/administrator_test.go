package service_test

import (
	"testing"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAnAdministratorIsIssuedACertificateForTheKeyOfTheRequest(t *testing.T) {
	w := servicetest.New(t)
	a := w.Admin().Administrators
	ctx := with(t.Context(), "idempotency-key", "k")
	ask := &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: "kim"}, Csr: []byte("kims-key"), LifetimeSeconds: 3600}
	first, err := a.CreateAdministrator(ctx, ask)
	if err != nil || string(first.GetChain()[0]) != "kim" || string(first.GetChain()[1]) != "kims-key" || first.GetAdministrator().GetFingerprint() != "SHA256:kims-key" {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := a.CreateAdministrator(ctx, ask)
	if err != nil || again.GetAdministrator().GetId() != first.GetAdministrator().GetId() || string(again.GetChain()[2]) != string(first.GetChain()[2]) {
		t.Fatalf("the repetition: %v, %v", again, err)
	}
	_, err = a.CreateAdministrator(t.Context(), ask)
	refuses(t, err, problem.NameTaken, "kim")
	_, err = a.CreateAdministrator(t.Context(), &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: "lee"}, Csr: []byte("damaged")})
	refuses(t, err, problem.Invalid, "certificate request")
	renewed, err := a.RenewAdministrator(t.Context(), &apiv1.RenewAdministratorRequest{Administrator: "kim", Csr: []byte("new-key")})
	if err != nil || renewed.GetAdministrator().GetFingerprint() != "SHA256:new-key" || !renewed.GetAdministrator().GetExpiresAt().AsTime().After(first.GetAdministrator().GetExpiresAt().AsTime()) {
		t.Fatalf("%v, %v", renewed, err)
	}
	_, err = a.RenewAdministrator(t.Context(), &apiv1.RenewAdministratorRequest{Administrator: "nobody", Csr: []byte("x")})
	refuses(t, err, problem.NotFound, "no administrator nobody")
	_, err = a.DeleteAdministrator(t.Context(), &apiv1.DeleteAdministratorRequest{Administrator: "kim"})
	refuses(t, err, problem.InUse, "the last administrator")
}

// TestP13WhoHoldsAServersKeyLetsAnAdministratorIn whether there is one of that name or not.
func TestP13WhoHoldsAServersKeyLetsAnAdministratorIn(t *testing.T) {
	w := servicetest.New(t)
	ctx, by := t.Context(), auth.Principal{Kind: auth.Admin, Name: "server-1", Actor: "spiffe://naru.test/server/server-1"}
	for _, key := range []string{"first", "second"} {
		chain, err := w.Service.LetIn(ctx, by, "kim", []byte(key))
		if err != nil || string(chain[1]) != key {
			t.Fatalf("%q, %v", chain, err)
		}
		m, err := w.Service.Administrator(ctx, "kim", "SHA256:"+key)
		if err != nil || m.GetFingerprint() != "SHA256:"+key || m.GetCreatedBy() != "spiffe://naru.test/server/server-1" {
			t.Fatalf("%v, %v", m, err)
		}
	}
}
