package etcdstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/folderlock"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
)

// folder is the agent's own: who it belongs to, the anchor, the endpoints last known, and the member's data.
type folder struct {
	dir  string
	lock *folderlock.Lock
}

type identity struct {
	Zone  string `json:"zone"`
	Agent string `json:"agent"`
}

// openFolder takes the folder for this process. A folder of another zone or agent, or one in use, is refused.
func openFolder(dir, zone, agent string) (*folder, error) {
	lock, err := folderlock.Take(dir)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir, lock: lock}
	if err := f.claim(identity{Zone: zone, Agent: agent}); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) claim(me identity) error {
	file := filepath.Join(f.dir, "identity.json")
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = json.Marshal(me)
		if err != nil {
			return err
		}
		return writeFile(file, raw)
	}
	if err != nil {
		return fmt.Errorf("agent's folder: %w", err)
	}
	var owner identity
	if err := json.Unmarshal(raw, &owner); err != nil {
		return fmt.Errorf("agent's folder: %s: %w", file, err)
	}
	if owner != me {
		return fmt.Errorf("folder %s belongs to agent %s of zone %s, this is agent %s of zone %s: point it to its own folder",
			f.dir, owner.Agent, owner.Zone, me.Agent, me.Zone)
	}
	return nil
}

func (f *folder) member() string { return filepath.Join(f.dir, "etcd") }

// anchor is the last one written; nil where there is none, or none that can be read: that begins a new incarnation,
// which is always safe.
func (f *folder) anchor() *zonev1.Anchor {
	raw, err := os.ReadFile(filepath.Join(f.dir, "anchor"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	a := new(zonev1.Anchor)
	if err != nil || proto.Unmarshal(raw, a) != nil || a.GetIncarnation() == "" {
		return &zonev1.Anchor{Incarnation: "unreadable"}
	}
	return a
}

func (f *folder) setAnchor(a *zonev1.Anchor) error {
	raw, err := proto.Marshal(a)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(f.dir, "anchor"), raw)
}

// endpoints are those last known of the cluster, so that an agent finds it again without being told.
func (f *folder) endpoints() []string {
	raw, err := os.ReadFile(filepath.Join(f.dir, "endpoints"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw))
}

func (f *folder) setEndpoints(all []string) error {
	return writeFile(filepath.Join(f.dir, "endpoints"), []byte(strings.Join(all, "\n")+"\n"))
}

func (f *folder) close() { f.lock.Release() }

// writeFile replaces a file in one step that outlasts a crash.
func writeFile(name string, data []byte) error {
	dir := filepath.Dir(name)
	t, err := os.CreateTemp(dir, filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	_, err = t.Write(data)
	if err = errors.Join(err, t.Sync(), t.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(t.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
