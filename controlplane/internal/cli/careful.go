package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// loss is what goes when a noun is deleted.
type loss struct {
	what string
	// typed: what goes cannot be made again, so its name has to be typed, where y is enough for the others.
	typed bool
}

// losses say what goes with each noun that can be deleted, by the noun.
var losses = map[string]loss{
	"vm":           {"Its disk and its snapshots are lost for good; naru vm trash stops it instead, and keeps it for some days.", true},
	"zone":         {"Its agents are refused from then on, and its quotas, crossings and role bindings go with it.", true},
	"project":      {"Its quotas, crossings and role bindings go with it.", true},
	"organization": {"Its quotas and role bindings go with it.", true},
	"user":         {"Password, sessions, tokens, certificates, roles and places in groups go with them; naru user disable keeps somebody out, and can be undone.", true},
	"server":       {"It leaves the quorum at once, and comes back only as a new one, with a token.", true},

	"snapshot":             {"The VM cannot be put back to it any more.", false},
	"cluster":              {"Its zone lets it go.", false},
	"host":                 {"Its zone lets it go.", false},
	"flavor":               {"Nothing can be made with it any more.", false},
	"image":                {"Nothing can be made of it any more.", false},
	"broker":               {"It is refused from then on.", false},
	"quota":                {"What it was of has that limit no more.", false},
	"token":                {"What uses it is refused from then on.", false},
	"group":                {"Its members lose the roles that it has.", false},
	"identity-provider":    {"Nobody logs in through it any more; sessions that it began, and places in groups that it gave, end.", false},
	"session":              {"Whoever acts by it is logged out.", false},
	"role":                 {"Nobody can be given it any more.", false},
	"role-binding":         {"Whoever has the role by it loses it at once.", false},
	"admin":                {"The certificate is refused from then on.", false},
	"request":              {"What was written and attached is lost.", false},
	"crossing":             {"What is changed across zones by it is refused from then on.", false},
	"delegation":           {"It ends at once.", false},
	"notification-channel": {"Nothing is sent by it any more.", false},
	"calendar":             {"No stage can reckon with it any more.", false},
	"approval-policy":      {"Nothing is decided by it any more.", false},
	"offering":             {"What was written is lost.", false},
}

// asks has a verb that destroys ask first, where somebody sits at a terminal who can answer; a script is not asked, nor is
// --yes. said is the question, and answer what has to be typed, where y is not enough.
func (a *app) asks(cmd *cobra.Command, question func(args []string) (said, answer string)) {
	var yes bool
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask; a script, with no terminal to ask at, is never asked")
	do := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes && a.typist() {
			said, answer := question(args)
			if !a.sure(cmd.Context(), said, answer) {
				return usagef("nothing was done; answer %s, or give --yes", cmp.Or(answer, "y"))
			}
		}
		return do(cmd, args)
	}
}

// sure asks until there is an answer, and reports whether it is the one that was asked for.
func (a *app) sure(ctx context.Context, said, answer string) bool {
	if answer == "" {
		return a.confirm(ctx, printable(said)+" [y/N] ")
	}
	typed, err := a.line(ctx, printable(said)+"\nType "+printable(answer)+" to go on: ", false)
	return err == nil && strings.TrimSpace(typed) == answer
}

// deletes asks before nouns are deleted: of one its name, of several how many they are.
func deletes(noun, plural string) func(names []string) (said, answer string) {
	return func(names []string) (said, answer string) {
		l, whom := losses[noun], noun+" "+names[0]
		if answer = names[0]; len(names) > 1 {
			answer, whom = strconv.Itoa(len(names)), fmt.Sprintf("%d %s (%s)", len(names), plural, strings.Join(names, ", "))
		}
		if !l.typed {
			answer = ""
		}
		return "Delete " + whom + "? " + l.what, answer
	}
}
