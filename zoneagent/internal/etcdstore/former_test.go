package etcdstore

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// killed is an agent that has ended without giving up what it owned; its leases would live for minutes.
func killed(t *testing.T) (*testZone, Config) {
	t.Helper()
	z := newZone(t)
	z.one()
	c := z.config(2, 1)
	c.LeaseTTL = 5 * time.Minute
	a := z.open(c)
	a.own("cluster/c1")
	a.own(UplinkName)
	a.close()
	return z, c
}

// waits reports that a campaign does not win while the former owner's lease lives.
func (r *running) waits(name string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 300*time.Millisecond)
	defer cancel()
	if o, err := r.Campaign(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		r.t.Errorf("it owns %v at once, %v", o, err)
	}
}

func TestP17AnAgentThatIsStartedAgainDoesNotWaitForItsOwnFormerLeases(t *testing.T) {
	z, c := killed(t)
	a := z.open(c)
	for _, name := range []string{"cluster/c1", UplinkName} {
		if o := a.own(name); !o.Held() {
			t.Errorf("%s is not held", name)
		}
	}
}

// P3: where the former process may be alive, its lease is waited for.
func TestP3ALeaseOfAProcessThatMayBeAliveIsWaitedFor(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, dir string){
		"a copy of the folder": func(t *testing.T, dir string) {
			copied := dir + ".copy"
			if err := errors.Join(os.CopyFS(copied, os.DirFS(dir)), os.Rename(dir, dir+".original"), os.Rename(copied, dir)); err != nil {
				t.Fatal(err)
			}
		},
		"another boot of the machine": func(t *testing.T, dir string) { rewrite(t, dir, func(n *leaseNote) { n.Boot = "another" }) },
		"a damaged note": func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "leases.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			z, c := killed(t)
			change(t, c.Dir)
			z.open(c).waits("cluster/c1")
		})
	}
}

func TestAnothersLeaseIsWaitedFor(t *testing.T) {
	z, _ := killed(t)
	z.open(z.config(3, 1)).waits("cluster/c1")
}

func TestALeaseIsNotedOnlyAsLongAsItIsKept(t *testing.T) {
	z := newZone(t)
	a := z.one()
	first, second := a.own("cluster/c1"), a.own("cluster/c2")
	var n leaseNote
	read := func() {
		t.Helper()
		n = leaseNote{}
		raw, err := os.ReadFile(filepath.Join(a.cfg.Dir, "leases.json"))
		if err != nil || json.Unmarshal(raw, &n) != nil {
			t.Fatal(err)
		}
	}
	if read(); len(n.Leases) != 2 {
		t.Errorf("of two: %v", n.Leases)
	}
	if err := first.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if read(); len(n.Leases) != 1 || n.Leases[0] != second.keeper.id {
		t.Errorf("of one: %v", n.Leases)
	}
}

func rewrite(t *testing.T, dir string, change func(*leaseNote)) {
	t.Helper()
	file := filepath.Join(dir, "leases.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var n leaseNote
	if err := json.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	change(&n)
	if raw, err = json.Marshal(n); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
