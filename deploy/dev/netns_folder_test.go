package dev

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

const inItsOwn = "NARU_TEST_OWN_MOUNTS"

// TestTheFolderOfNamespacesIsLeftAsItWas, in a mount namespace of its own: nothing where there was nothing, the mount where
// it was there, and what somebody else has put there since.
func TestTheFolderOfNamespacesIsLeftAsItWas(t *testing.T) {
	if os.Getenv(inItsOwn) == "" {
		apart := []string{"--net", "--mount", "sh", "-c"}
		if os.Geteuid() != 0 {
			apart = append([]string{"--user", "--map-root-user"}, apart...)
		}
		cmd := exec.Command("unshare", append(apart, "mount -t tmpfs tmpfs /run && exec \"$0\" -test.v -test.run "+t.Name(), os.Args[0])...)
		cmd.Env = append(os.Environ(), inItsOwn+"=1")
		if exec.Command("unshare", append(apart, "mount -t tmpfs tmpfs /run && ip netns add any")...).Run() != nil {
			t.Skip("this machine gives out no namespaces, or has no ip")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"netns"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	is := func(wantFolder, wantMount bool) {
		t.Helper()
		_, err := os.Stat(netnsFolder)
		mounted, err2 := isMounted(netnsFolder)
		if err2 != nil || mounted != wantMount || (err == nil) != wantFolder || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder: %v; mounted: %t, %v", err, mounted, err2)
		}
	}
	site := func() *Site {
		s, err := New(t.TempDir(), "", Namespaces, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.noteNetnsFolder(); err != nil {
			t.Fatal(err)
		}
		ip("add", s.netns("one"))
		ip("add", s.netns("two"))
		return s
	}
	lift := func(s *Site) {
		t.Helper()
		if err := s.liftNetworks(t.Context()); err != nil {
			t.Error(err)
		}
	}
	lift(site())
	is(false, false)
	lift(site())
	is(false, false)

	first := site()
	ip("add", "others")
	lift(first)
	is(true, true)
	lift(site()) // the mount is not its own
	is(true, true)
	ip("del", "others")
	lift(first)
	is(false, false)
}
