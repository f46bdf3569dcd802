package obs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
)

// ProfileSocket is the name of the socket in a program's data folder that ServeProfiles listens on.
const ProfileSocket = "profile.sock"

// ServeProfiles serves Go's profiles under /debug/pprof/ until ctx ends, on a unix socket in the data folder: who may read
// the folder may look into the process, and nobody over a network.
func ServeProfiles(ctx context.Context, dataDir string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if err := ServeSocket(ctx, filepath.Join(dataDir, ProfileSocket), mux); err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	return nil
}

// ServeSocket serves h until ctx ends, on a unix socket that its owner alone may use. What a killed process left there is
// replaced.
func ServeSocket(ctx context.Context, path string, h http.Handler) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	short, folder, err := ShortPath(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	l, err := net.Listen("unix", short)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	return Serve(ctx, l, h)
}

// ShortPath returns another name of a socket's path, good until folder is closed: the kernel takes no more than 107 bytes, and
// where somebody's folder lies is theirs to choose.
func ShortPath(path string) (short string, folder io.Closer, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), dir, nil
}
