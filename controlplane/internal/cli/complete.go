package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/client"
)

// completionTime is how long a shell waits for names.
const completionTime = 3 * time.Second

// lister returns the names of the nouns of one kind in a scope.
type lister func(ctx context.Context, c *client.Client, s scope) ([]string, error)

func namesOf[M proto.Message](n noun[M]) lister {
	return func(ctx context.Context, c *client.Client, s scope) ([]string, error) {
		q := query{scope: s, size: 1000}
		if n.name == "operation" {
			q.filter = "done=false"
		}
		page, _, err := n.list(ctx, c, q)
		var out []string
		for _, m := range page {
			out = append(out, nameOf(m))
		}
		return out, err
	}
}

// completeWith completes a flag with fixed words.
func (a *app) completeWith(cmd *cobra.Command, flag string, words []string) {
	a.completeFlag(cmd, flag, func(*cobra.Command) []string { return words })
}

func (a *app) completeFlag(cmd *cobra.Command, flag string, words func(*cobra.Command) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return beginning(words(cmd), begun), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is not there, or is completed twice
	}
}

// completeNames completes a flag with the names of the nouns of a kind.
func (a *app) completeNames(cmd *cobra.Command, flag, noun string) {
	a.completeFlag(cmd, flag, func(cmd *cobra.Command) []string {
		var s scope
		if noun == "cluster" {
			if zone := cmd.Flags().Lookup("zone"); zone != nil {
				s.zone = zone.Value.String()
			}
		}
		return a.ask(cmd, noun, s)
	})
}

// completeFields completes the flags of fields that hold words or names.
func (a *app) completeFields(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if w, ok := f.Value.(word); ok {
			a.completeWith(cmd, f.Name, w.words())
			return
		}
		switch f.Name {
		case "broker", "image", "flavor":
			a.completeNames(cmd, f.Name, f.Name)
		case "parent":
			a.completeNames(cmd, f.Name, "zone")
		}
	})
}

// completeArguments completes up to most arguments, or any number where that is 0, with names of a noun.
func (a *app) completeArguments(cmd *cobra.Command, noun string, most int, s *scope) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, name := range beginning(a.ask(cmd, noun, *s), begun) {
			if !slices.Contains(args, name) {
				out = append(out, name)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// ask returns the names of a noun, or none where that fails: a shell has no place for an error.
func (a *app) ask(cmd *cobra.Command, noun string, s scope) []string {
	list, ok := a.names[noun]
	if !ok {
		return nil
	}
	var out []string
	_ = a.run(cmd, completionTime, func(ctx context.Context, c *client.Client) (err error) {
		a.defaults([]string{"project", "zone"}, &s)
		out, err = list(ctx, c, s)
		return err
	})
	slices.Sort(out) // clusters of several zones may have one name
	return slices.Compact(out)
}

func beginning(words []string, begun string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !strings.HasPrefix(w, begun) })
}
