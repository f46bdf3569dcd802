package service_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// backUp reads a backup and returns its name, its bytes and the digest that came with it.
func backUp(t *testing.T, w *servicetest.World) (name string, got, sum []byte) {
	t.Helper()
	stream, err := w.Admin().Servers.BackUp(t.Context(), &apiv1.BackUpRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return name, got, sum
		}
		if err != nil {
			t.Fatal(err)
		}
		name, got, sum = name+m.GetBackup(), append(got, m.GetChunk()...), m.GetSha256()
	}
}

func TestP24ABackupIsConfirmedByItsNameOnceItWasReadBack(t *testing.T) {
	w := servicetest.New(t)
	w.Backup = bytes.Repeat([]byte("state"), 100_000)
	old, _, _ := backUp(t, w)
	name, got, sum := backUp(t, w)
	if want := sha256.Sum256(w.Backup); !bytes.Equal(got, w.Backup) || !bytes.Equal(sum, want[:]) || name == "" || name == old {
		t.Fatalf("%s has %d bytes of digest %x", name, len(got), sum)
	}
	_, err := w.Admin().Servers.ConfirmBackUp(t.Context(), &apiv1.ConfirmBackUpRequest{Backup: old})
	refuses(t, err, problem.Conflict, "not the newest")
	if _, err := w.Admin().Servers.ConfirmBackUp(t.Context(), &apiv1.ConfirmBackUpRequest{Backup: name}); err != nil {
		t.Fatal(err)
	}
	events, err := w.Admin().Events.ListEvents(t.Context(), &apiv1.ListEventsRequest{Filter: "type=federation.backup"})
	if err != nil || len(events.GetEvents()) != 1 {
		t.Errorf("%v, %v", events, err)
	}
}
