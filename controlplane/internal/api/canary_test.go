package api_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// believed is who calls: an administrator who says so; tokens are judged for real.
type believed struct{ *auth.Authenticator }

func (b believed) Authenticate(ctx context.Context, c auth.Credentials) (auth.Principal, error) {
	if c.Authorization == "the administrator" {
		return auth.Principal{Kind: auth.Admin, Name: "kim", Actor: "spiffe://naru.test/admin/kim"}, nil
	}
	return b.Authenticator.Authenticate(ctx, c)
}

func (b believed) Recheck(context.Context, auth.Principal) error { return nil }

// lines gathers what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// TestNoSecretIsWrittenDown sends secrets in by every way in, well and badly, and looks for them in the audit log, in the process's
// log, and in the replicated state. What belongs in the state (a VM's user data) is in that alone.
func TestNoSecretIsWrittenDown(t *testing.T) {
	w := servicetest.New(t)
	w.NewSite(1)
	log := &lines{}
	who := believed{auth.New(w.Service, func() *x509.Certificate { return nil }, time.Now)}
	s, err := api.New(api.Config{
		Register: w.Service.Register, Who: who, May: w.Service, Audit: w.Service, Gatherer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	services := client.NewServices(s.Local())
	as := func(authorization string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", authorization)
	}
	admin := as("the administrator")
	nowhere, stateOnly := map[string]string{}, map[string]string{}

	token, err := services.AccessTokens.CreateAccessToken(admin, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{Name: "ci", Project: "web", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}})
	if err != nil {
		t.Fatal(err)
	}
	secret := token.GetSecret()
	nowhere["an access token's secret"] = secret[len(secret)-32:]
	if _, err := services.VMs.ListVMs(as("Bearer "+secret), &apiv1.ListVMsRequest{}); err != nil {
		t.Fatal(err)
	}
	wrong := secret[:len(secret)-40] + strings.Repeat("A", 40)
	nowhere["what is no token"], nowhere["a password in the wrong scheme"] = "canary-of-no-token", "Y2FuYXJ5OnBhc3N3b3Jk"
	for _, authorization := range []string{"Bearer " + wrong, "Bearer canary-of-no-token", "Basic Y2FuYXJ5OnBhc3N3b3Jk", "Bearer " + secret + "x"} {
		if _, err := services.VMs.ListVMs(as(authorization), &apiv1.ListVMsRequest{}); err == nil {
			t.Errorf("%s was let in", authorization)
		}
	}
	stateOnly["a VM's user data"] = "canary-in-user-data"
	vm := w.VM("web-9", "web")
	vm.UserData = "#cloud-config\n# canary-in-user-data\n"
	for range 2 { // the second time it is refused
		_, err = services.VMs.CreateVM(admin, &apiv1.CreateVMRequest{Vm: vm})
	}
	if err == nil {
		t.Fatal("the same VM was made twice")
	}
	if _, err := services.VMs.CreateVM(as("Bearer "+wrong), &apiv1.CreateVMRequest{Vm: vm}); err == nil {
		t.Fatal("a wrong token makes VMs")
	}

	listed, err := services.Audit.ListAuditEntries(admin, &apiv1.ListAuditEntriesRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := protojson.Marshal(listed)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, leaves := replicated(t, w)
	if !bytes.Contains(leaves, []byte("access-token.create")) || !bytes.Contains(leaves, []byte("TOKEN_INVALID")) || !bytes.Contains(snapshot, []byte("canary-in-user-data")) {
		t.Fatal("the test does not look where it should")
	}
	for what, canary := range nowhere {
		for where, text := range map[string][]byte{"the list": shown, "the audit log": leaves, "the log": log.bytes(), "the state": snapshot} {
			if bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
	for what, canary := range stateOnly {
		for where, text := range map[string][]byte{"the list": shown, "the audit log": leaves, "the log": log.bytes()} {
			if bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}

// replicated returns the state as a snapshot has it, and the audit log's leaves, which are what an export carries.
func replicated(t *testing.T, w *servicetest.World) (snapshot, leaves []byte) {
	t.Helper()
	s, err := w.DB.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if _, err := s.WriteTo(&b); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	err = w.DB.View(t.Context(), func(tx *state.Tx) error {
		all, err := tx.AuditLeaves(0, 100_000)
		for _, l := range all {
			leaves = append(leaves, l.Leaf...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), leaves
}
