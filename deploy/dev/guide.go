package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Means says in a sentence how the networks are kept apart, and what cannot be had that way.
func (s *Site) Means(o Options) string {
	means := "every network in a namespace of its own"
	switch s.Mode {
	case UserNamespaces:
		means += ", inside a user namespace"
	case Loopback:
		means = "everything on loopback, and NOTHING IS SEPARATED: that takes root, or user namespaces"
	}
	if why := s.lacks(); why != "" && !o.WithoutLibvirt {
		means += "; no real hosts: " + why
	}
	return means
}

// Guide says how to go on with a site that is up, in commands that can be pasted.
func (s *Site) Guide() string {
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	naru := nearby(s.program("naru"))
	dev := func(args string) string {
		if dir := nearby(s.dir); dir != ".naru-dev" {
			args += " --state " + dir
		}
		return nearby(s.program("naru-dev")) + " " + args
	}
	config := func(network string) string {
		return "NARU_CONFIG=" + nearby(s.path("cli", network+".yaml")) + " " + naru
	}
	line("")
	line("The site is up. The API of each network, from this machine:")
	for _, n := range s.Networks {
		line("  %-12s%s", n.Name, n.API)
	}
	line("In another terminal:")
	line("  XDG_STATE_HOME=%s %s request list     # kim, at the internet zone's edge", nearby(s.path("cli", "kim")), config("kim"))
	line("  %s host top     # the administrator, in the control network", config("control"))
	if s.Mode != Loopback {
		line("  %s; %s zone list", dev("cut business"), config("control"))
		line("  %s", dev("heal business"))
	}
	line("  %s; %s", dev("kill controlplane-1"), dev("start controlplane-1"))
	line("Ctrl-C ends the site and leaves nothing behind.")
	return b.String()
}

// nearby returns a path as one would type it here.
func nearby(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return path
}
