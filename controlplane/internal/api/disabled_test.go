package api_test

import (
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// TestP12WhatADisabledPersonHasMadeIsCutOffWithinTwoSeconds: their certificate, and the tokens that they have seen.
func TestP12WhatADisabledPersonHasMadeIsCutOffWithinTwoSeconds(t *testing.T) {
	f := newFederation(t, 1)
	f.admin() // another's certificate, which stays
	f.person("lee")
	bot := f.User("bot", apiv1.User_SERVICE)
	f.letSee("bot")
	lee := f.dial(f.tls(f.administratorWho("lee-cert", "lee")))
	token := func(name, project, user string) *client.Services {
		t.Helper()
		r, err := lee.AccessTokens.CreateAccessToken(t.Context(), &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
			Name: name, Project: project, User: user, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}})
		if err != nil {
			t.Fatal(problem.FromStatus(err))
		}
		return f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(r.GetSecret())))
	}
	spared := f.dial(f.tls(), grpc.WithPerRPCCredentials(bearer(f.token("ci", "web", ""))))
	callers := map[string]*client.Services{"certificate": lee, "project's token": token("lees", "web", ""), "service's token": token("bots", "", bot.GetName())}
	watches := map[string]<-chan error{}
	for what, c := range callers {
		watches[what] = lookOn(t, c)
	}
	goesOn := lookOn(t, spared)
	began := time.Now()
	r, err := f.Admin().Users.DisableUser(t.Context(), &apiv1.DisableUserRequest{User: "lee", Reason: "left"})
	if err != nil || len(r.GetEnded()) != 3 || !r.GetUser().GetDisabled() {
		t.Fatalf("%v, %v", r, err)
	}
	for what, c := range callers {
		want := problem.TokenInvalid
		if what == "certificate" {
			want = problem.Revoked
		}
		if _, err := c.VMs.ListVMs(t.Context(), &apiv1.ListVMsRequest{}); !problem.Is(problem.FromStatus(err), want) {
			t.Errorf("the next call with the %s: %v", what, err)
		}
		if err := <-watches[what]; !problem.Is(err, want) {
			t.Errorf("the watch with the %s ended with %v", what, err)
		}
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if _, err := f.Admin().Users.EnableUser(t.Context(), &apiv1.EnableUserRequest{User: "lee", Reason: "back"}); err != nil {
		t.Fatal(err)
	}
	for what, c := range callers {
		if _, err := c.VMs.ListVMs(t.Context(), &apiv1.ListVMsRequest{}); err == nil {
			t.Errorf("the %s came back with the person", what)
		}
	}
	select {
	case err := <-goesOn:
		t.Errorf("the watch with a token of somebody else's making ended with %v", err)
	default:
	}
}

// TestACertificateOfOneWhoIsDisabledIsRefused, even where it is recorded all the same.
func TestACertificateOfOneWhoIsDisabledIsRefused(t *testing.T) {
	f := newFederation(t, 1)
	f.admin()
	f.person("lee")
	certificate := f.administratorWho("lee-cert", "lee")
	lee := f.dial(f.tls(certificate))
	list := func() error {
		_, err := lee.VMs.ListVMs(t.Context(), &apiv1.ListVMsRequest{})
		return problem.FromStatus(err)
	}
	if err := list(); err != nil {
		t.Fatal(err)
	}
	if err := f.DB.Update(func(tx *state.Tx) error { // as it may stand there from before disabling ended it
		u, err := tx.Users.ByName("lee", nil)
		u.Disabled = true
		return errors.Join(err, tx.Users.Put(u))
	}); err != nil {
		t.Fatal(err)
	}
	if err := list(); !problem.Is(err, problem.Revoked) {
		t.Errorf("the next call: %v", err)
	}
}

// administratorWho records an administrator who is a person, and issues a certificate.
func (f *federation) administratorWho(name, user string) tls.Certificate {
	f.Helper()
	c := f.administrator(name)
	u, err := f.Admin().Users.GetUser(f.Context(), &apiv1.GetUserRequest{User: user})
	if err != nil {
		f.Fatal(err)
	}
	m, err := f.Admin().Administrators.GetAdministrator(f.Context(), &apiv1.GetAdministratorRequest{Administrator: name})
	if err != nil {
		f.Fatal(err)
	}
	a := m.GetAdministrator()
	f.Do(&commandv1.Command{Body: &commandv1.Command_RenewAdministrator{RenewAdministrator: &commandv1.RenewAdministrator{
		AdministratorId: a.GetId(), Fingerprint: a.GetFingerprint(), ExpiresAt: a.GetExpiresAt(), User: user, UserId: u.GetUser().GetId()}}})
	return c
}
