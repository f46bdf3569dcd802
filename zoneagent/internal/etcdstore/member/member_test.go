package member

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

func config(t *testing.T) Config {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.1", 1+rand.IntN(250), rand.IntN(250))
	return Config{
		Name: "agent-1", Cluster: "zone", Dir: filepath.Join(t.TempDir(), "etcd"), Peer: host + ":2380", Client: host + ":2379",
		Tick: 10 * time.Millisecond, Election: 100 * time.Millisecond, NoSync: true, Logger: slog.New(slog.DiscardHandler),
	}
}

func started(t *testing.T, c Config) *Member {
	t.Helper()
	m, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	<-m.Ready()
	return m
}

func TestAMemberResumesWithItsData(t *testing.T) {
	c := config(t)
	if HasData(c.Dir) {
		t.Error("a folder that is not there has data")
	}
	m := started(t, c)
	client := m.Direct()
	if _, err := client.Put(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	id := m.ID()
	client.Close()
	m.Close()
	<-m.Stopped()
	if !HasData(c.Dir) {
		t.Error("its folder has no data")
	}
	m = started(t, c)
	defer m.Close()
	client = m.Direct()
	defer client.Close()
	got, err := client.Get(t.Context(), "k")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" || m.ID() != id {
		t.Errorf("got %v, %v, member %x after %x", got, err, m.ID(), id)
	}
}

// P18: a damaged log is refused, and the process lives.
func TestADamagedLogIsAnErrorThatNamesTheFolder(t *testing.T) {
	c := config(t)
	m := started(t, c)
	m.Close()
	err := filepath.WalkDir(filepath.Join(c.Dir, "member", "wal"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".wal") {
			return err
		}
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 64), 40)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(c); err == nil || !strings.Contains(err.Error(), c.Dir) || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("error is %v", err)
	}
}

func TestARestoreThatWasCutShortIsNotStarted(t *testing.T) {
	c := config(t)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, unfinished), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(c); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("error is %v", err)
	}
}

func TestWhatAMemberNeedsIsNamed(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"name":                    func(c *Config) { c.Name = "" },
		"IP:port":                 func(c *Config) { c.Client = "localhost" },
		"certificates are needed": func(c *Config) { c.Peer = "192.0.2.1:1" },
		"agents' certificates":    func(c *Config) { c.TLS = &TLS{CertFile: "a"} },
		"no such file":            func(c *Config) { c.TLS = &TLS{Name: "n", CertFile: "a", KeyFile: "b", CAFile: "c"} },
	} {
		c := config(t)
		change(&c)
		if _, err := Start(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestEtcdsLogComesAtTheLevelItDeserves(t *testing.T) {
	var out bytes.Buffer
	l := zapLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	l.Info("detail")
	l.With(zap.String("member", "m1")).Warn("slow", zap.Int("ms", 7))
	l.Error("broken")
	got := out.String()
	if strings.Contains(got, "detail") || !strings.Contains(got, "level=WARN msg=slow member=m1 ms=7") || !strings.Contains(got, "level=ERROR msg=broken") {
		t.Errorf("log is %s", got)
	}
	if err := l.Sync(); err != nil {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a fatal line does not come as a panic")
		}
	}()
	l.Fatal("the end")
}
