package version

import (
	"runtime/debug"
	"testing"
)

func TestABuildThatNobodyNamedIsKnownByItsCommit(t *testing.T) {
	vcs := func(main, modified string) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: main}, Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}, {Key: "vcs.modified", Value: modified},
		}}
	}
	for _, c := range []struct {
		info *debug.BuildInfo
		ok   bool
		want string
	}{
		{vcs("(devel)", "false"), true, "0123456789ab"},
		{vcs("", "true"), true, "0123456789ab-dirty"},
		{vcs("v1.2.3", "false"), true, "v1.2.3"},
		{&debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, true, "dev"},
		{nil, false, "dev"},
	} {
		if got := noted(c.info, c.ok); got != c.want {
			t.Errorf("%v: %q, want %q", c.info, got, c.want)
		}
	}
}
