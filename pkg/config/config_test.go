package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Listen  string        `yaml:"listen"`
	Timeout time.Duration `yaml:"timeout"`
	Store   struct {
		Quota int `yaml:"quota"`
	} `yaml:"store"`
	Pools []struct {
		CIDR string `yaml:"cidr"`
	} `yaml:"pools"`
}

func load(t *testing.T, text string) (sample, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sample{Listen: ":1", Timeout: time.Second}
	err := Load(path, &s)
	return s, err
}

func TestTheFileOverridesTheDefaults(t *testing.T) {
	s, err := load(t, "timeout: 5s\nstore: {quota: 7}\npools: [{cidr: 10.0.0.0/24}]\n")
	if err != nil || s.Listen != ":1" || s.Timeout != 5*time.Second || s.Store.Quota != 7 || s.Pools[0].CIDR != "10.0.0.0/24" {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestAnEmptyFileKeepsTheDefaults(t *testing.T) {
	if s, err := load(t, ""); err != nil || s.Listen != ":1" {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestUnknownKeysAreNamedWithThoseThatExist(t *testing.T) {
	for text, want := range map[string]string{
		"lisen: x\n":               `"lisen"; known here: listen, pools, store, timeout`,
		"store: {kuota: 1}\n":      `"store.kuota"; known here: quota`,
		"pools: [{cidr: a, x: 1}]": `"pools[0].x"; known here: cidr`,
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestAWrongTypeNamesTheFileAndTheKey(t *testing.T) {
	if _, err := load(t, "store: {quota: many}\n"); err == nil || !strings.Contains(err.Error(), "quota") || !strings.Contains(err.Error(), "c.yaml") {
		t.Fatalf("got %v", err)
	}
}

func TestAMissingFileIsNamed(t *testing.T) {
	if err := Load("/nowhere/c.yaml", &sample{}); err == nil || !strings.Contains(err.Error(), "/nowhere/c.yaml") {
		t.Fatalf("got %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("listen: x\n")
	f.Add("pools: [{cidr: [1]}]\nstore: 3")
	f.Fuzz(func(t *testing.T, text string) { load(t, text) })
}
