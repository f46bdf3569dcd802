package obs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProfilesAreServedOnASocketOfTheOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-way-down/", 8)) // longer than the kernel takes a socket's path
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, ProfileSocket)
	// What a killed process left.
	if err := os.WriteFile(socket, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ServeProfiles(ctx, dir) }()

	dialer := &net.Dialer{}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		for {
			short, folder, err := ShortPath(socket)
			if err != nil {
				return nil, err
			}
			c, err := dialer.DialContext(ctx, "unix", short)
			folder.Close()
			if err == nil || ctx.Err() != nil {
				return c, errors.Join(err, ctx.Err())
			}
		}
	}}}
	r, err := client.Get("http://profiles/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Errorf("answered %s", r.Status)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
