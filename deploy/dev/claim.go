package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Claim is a run's hold on the folder of its site. The kernel lets go of it when the run ends, by whatever means: a folder
// that is not held has no run, though what a killed run left may still stand there.
type Claim struct{ f *os.File }

// runner is what lies in the claimed file: who runs the site.
type runner struct {
	Mode Mode `json:"mode"`
	ProcessIdentity
}

// BusyError says that a folder is another run's.
type BusyError struct {
	Dir string
	PID int
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("a site is up in %s, or coming up (naru-dev run, process %d).\n"+
		"  See it with: naru-dev status --state %s\n  End it with: naru-dev down --state %s\n"+
		"  Or bring up another one beside it, with another --state.", e.Dir, e.PID, e.Dir, e.Dir)
}

// ClaimFolder makes a folder this process's, for one site, and clears away what a run that was killed has left there.
func ClaimFolder(ctx context.Context, dir, bin string, mode Mode, say *Story) (*Claim, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := mayBeClaimed(dir); err != nil {
		return nil, err
	}
	c, before, err := openClaim(dir, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	held, err := c.take()
	if err == nil && !held {
		err = &BusyError{Dir: dir, PID: before.PID}
	}
	if err == nil {
		err = clearAway(ctx, dir, bin, before.modeOr(mode), say)
	}
	if err == nil {
		err = c.sign(mode)
	}
	if err != nil {
		c.Release()
		return nil, err
	}
	return c, nil
}

// End ends the site of a folder, however far its run has come, whether that lives or was killed, and leaves nothing.
func End(ctx context.Context, dir, bin string, say *Story) error {
	c, run, err := openClaim(dir, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is no folder of a site; name the site's with --state", dir)
	}
	if err != nil {
		return err
	}
	defer c.Release()
	if err := c.takeFrom(ctx, run); err != nil {
		return err
	}
	return clearAway(ctx, dir, bin, run.modeOr(ChooseMode()), say)
}

// notUp says why a folder has no site that is up.
func notUp(dir string) error {
	c, run, err := openClaim(dir, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no site is up in %s; bring one up with: naru-dev run --state %s", dir, dir)
	}
	if err != nil {
		return err
	}
	defer c.Release()
	if held, err := c.take(); err == nil && !held {
		return fmt.Errorf("the site in %s is coming up or going down (naru-dev run, process %d); ask again when that is done", dir, run.PID)
	}
	return fmt.Errorf("no site is up in %s; bring one up with: naru-dev run --state %s", dir, dir)
}

func clearAway(ctx context.Context, dir, bin string, mode Mode, say *Story) error {
	s, err := New(dir, bin, mode, say)
	if err != nil {
		return err
	}
	if err := s.Down(ctx); err != nil {
		return fmt.Errorf("clear what an earlier run left in %s: %w", dir, err)
	}
	return nil
}

// claimFile is the file that is claimed; with it, a folder is a site's.
const claimFile = "claim"

// mayBeClaimed refuses a folder that holds what is not a site's: taking a site down removes data.
func mayBeClaimed(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, claimFile)); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(append(folders, "site.json"), e.Name()) {
			return fmt.Errorf("%s is not a site's folder: it holds %s; name a new or an empty folder with --state", dir, e.Name())
		}
	}
	return nil
}

// openClaim opens the file that is claimed, and reads who claimed it last.
func openClaim(dir string, flag int) (*Claim, runner, error) {
	f, err := os.OpenFile(filepath.Join(dir, claimFile), os.O_RDWR|flag, 0o600)
	if err != nil {
		return nil, runner{}, err
	}
	var r runner
	b, err := io.ReadAll(f)
	if err == nil && len(b) > 0 && json.Unmarshal(b, &r) != nil {
		r = runner{} // a run that was killed while it signed
	}
	return &Claim{f}, r, err
}

// take takes the hold, where nobody has it.
func (c *Claim) take() (bool, error) {
	err := syscall.Flock(int(c.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// takeFrom asks the run that has the hold to end, and takes it then. A run that does not end within a minute is killed.
func (c *Claim) takeFrom(ctx context.Context, run runner) error {
	polite, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for asked := false; ; asked = true {
		held, err := c.take()
		if held || err != nil {
			return err
		}
		if !asked && run.alive() {
			syscall.Kill(run.PID, syscall.SIGTERM)
		}
		if polite.Err() != nil && run.alive() {
			syscall.Kill(run.PID, syscall.SIGKILL)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("naru-dev run (process %d) does not end: %w", run.PID, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Claim) sign(mode Mode) error {
	me, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	b, err := json.Marshal(runner{mode, me})
	if err != nil {
		return err
	}
	if err := c.f.Truncate(0); err != nil {
		return err
	}
	_, err = c.f.WriteAt(b, 0)
	return err
}

// Release lets go of the folder.
func (c *Claim) Release() { c.f.Close() }

func (r runner) modeOr(other Mode) Mode {
	if r.Mode != "" {
		return r.Mode
	}
	return other
}
