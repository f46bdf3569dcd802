// Package version says which build this is.
package version

import (
	"cmp"
	"runtime/debug"
)

// linked is set by the linker: the output of git describe.
var linked string

// Version is what the linker says, else what Go itself has noted of the sources.
var Version = cmp.Or(linked, noted(debug.ReadBuildInfo()))

// noted is the module's version, else the commit that was built; dev where neither is known, as in a test.
func noted(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var commit, changed string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "-dirty"
		}
	}
	if commit == "" {
		return "dev"
	}
	return commit + changed
}
