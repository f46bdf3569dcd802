package fsm_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func createAdministrator(name string, until time.Time) *commandv1.Command {
	return &commandv1.Command{Actor: "spiffe://example.test/admin/first", Body: &commandv1.Command_CreateAdministrator{CreateAdministrator: &commandv1.CreateAdministrator{
		Administrator: &apiv1.Administrator{Id: "a-" + name, Name: name, Fingerprint: "SHA256:" + name, ExpiresAt: timestamppb.New(until)},
	}}}
}

func deleteAdministrator(name string) *commandv1.Command {
	return &commandv1.Command{Actor: "spiffe://example.test/admin/first", Body: &commandv1.Command_DeleteAdministrator{DeleteAdministrator: &commandv1.DeleteNoun{Id: "a-" + name}}}
}

func renewAdministrator(name, key string, until time.Time) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_RenewAdministrator{RenewAdministrator: &commandv1.RenewAdministrator{
		AdministratorId: "a-" + name, Fingerprint: key, ExpiresAt: timestamppb.New(until),
	}}}
}

func TestTheLastAdministratorWhoseCertificateIsGoodStays(t *testing.T) {
	p := bootstrapped(t)
	p.accept(createAdministrator("kim", start.Add(time.Hour)))
	p.refuse(problem.InUse, deleteAdministrator("kim"))
	p.accept(createAdministrator("lee", start.Add(90*24*time.Hour)))
	p.accept(createAdministrator("old", start.Add(2*time.Hour)))
	p.accept(deleteAdministrator("kim"))
	p.now = start.Add(24 * time.Hour) // old's certificate has ended: it cannot be who remains
	p.refuse(problem.InUse, deleteAdministrator("lee"))
	p.accept(deleteAdministrator("old"))
	p.refuse(problem.NotFound, deleteAdministrator("kim"))
}

func TestWhatHappensToAdministratorsIsTold(t *testing.T) {
	p := bootstrapped(t)
	p.accept(createAdministrator("kim", start.Add(time.Hour)))
	p.accept(createAdministrator("lee", start.Add(time.Hour)))
	p.accept(renewAdministrator("kim", "SHA256:kim", start.Add(2*time.Hour)))
	p.accept(renewAdministrator("kim", "SHA256:another", start.Add(3*time.Hour)))
	p.accept(deleteAdministrator("lee"))
	p.refuse(problem.NotFound, renewAdministrator("lee", "SHA256:lee", start.Add(time.Hour)))
	p.refuse(problem.Conflict, createAdministrator("kim", start.Add(time.Hour)))
	got := p.events()
	for kind, n := range map[string]int{"administrator.created": 2, "administrator.renewed": 2, "administrator.deleted": 1} {
		if got[kind] != n {
			t.Errorf("%s was told %d times, not %d", kind, got[kind], n)
		}
	}
	p.view(func(tx *state.Tx) {
		m, err := tx.Administrators.Get("a-kim")
		if err != nil || m.GetFingerprint() != "SHA256:another" || !m.GetExpiresAt().AsTime().Equal(start.Add(3*time.Hour)) || m.GetRenewedAt() == nil {
			t.Errorf("kim is %v, %v", m, err)
		}
		if m.GetCreatedBy() != "spiffe://example.test/admin/first" {
			t.Errorf("kim was made by %q", m.GetCreatedBy())
		}
	})
}
