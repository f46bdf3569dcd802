package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/naru-project/naru/pkg/folderlock"
)

// folder is the data folder: whose it is, and that nobody else works in it.
//
//	diverged       why this server must not go on, once its state was found to differ
//	lock           held while a process works here; its pid
//	identity.json  the server and federation it belongs to
//	log/           the log, see raftlog
//	snapshots/     the snapshots, by hashicorp/raft
type folder struct {
	path string
	lock *folderlock.Lock
}

type identity struct {
	Server     string `json:"server"`
	Federation string `json:"federation"`
}

// openFolder makes the folder when it is missing, locks it, and refuses one of another server or federation.
func openFolder(path string, of identity) (*folder, error) {
	lock, err := folderlock.Take(path)
	if err != nil {
		return nil, err
	}
	f := &folder{path: path, lock: lock}
	if err := os.MkdirAll(f.log(), 0o700); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if err := errors.Join(checkDiverged(path), f.claim(of)); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *folder) claim(of identity) error {
	name := filepath.Join(f.path, "identity.json")
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if raw, err = json.Marshal(of); err != nil {
			return err
		}
		return writeDurably(name, append(raw, '\n'))
	}
	if err != nil {
		return err
	}
	var is identity
	if err := json.Unmarshal(raw, &is); err != nil {
		return fmt.Errorf("the data folder %s does not say whose it is: %s: %w; put that file back from a backup of the folder, or give this server an empty folder and let it join anew", f.path, name, err)
	}
	if is != of {
		return fmt.Errorf("the data folder %s belongs to server %s of federation %s, and this is server %s of federation %s; give this server the folder that is its own, or an empty one to join with",
			f.path, is.Server, is.Federation, of.Server, of.Federation)
	}
	return nil
}

func (f *folder) log() string { return filepath.Join(f.path, "log") }

func (f *folder) close() error { return f.lock.Release() }

// writeDurably replaces a small file whole.
func writeDurably(name string, content []byte) error {
	tmp, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
