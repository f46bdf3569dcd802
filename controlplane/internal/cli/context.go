package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
)

// place is one of the user's configurations, as `context list` shows it.
type place struct {
	Name    string `json:"name"`
	Server  string `json:"server"`
	Project string `json:"project"`
	Current bool   `json:"current"`
}

func (a *app) contexts() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Aliases: []string{"contexts"}, Short: "Your configurations: which API is asked, and as whom",
		Long: fmt.Sprintf(`Your configurations: which API is asked, and as whom.

A context NAME is the file NAME.yaml in %s.`, filepath.Dir(client.ContextPath(""))),
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Take a context from now on", Args: oneArgument,
		RunE: func(_ *cobra.Command, args []string) error { return useContext(args[0]) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return beginning(client.Contexts(), begun), cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List contexts", Args: noArguments, RunE: func(*cobra.Command, []string) error {
			return a.listContexts()
		}},
		use,
	)
	return cmd
}

func (a *app) listContexts() error {
	current := client.CurrentContext()
	places := []place{}
	for _, name := range client.Contexts() {
		p := place{Name: name, Current: name == current}
		if c, err := client.ReadConfig(client.ContextPath(name)); err != nil {
			p.Server = "not readable: " + err.Error()
		} else {
			p.Server, p.Project = c.Server, c.Project
		}
		places = append(places, p)
	}
	switch {
	case a.documents():
		return a.document(places)
	case a.output == "name":
		for _, p := range places {
			fmt.Fprintln(a.out, p.Name)
		}
		return nil
	case len(places) == 0:
		fmt.Fprintf(a.err, "There are none; a context NAME is the file %s.\n", client.ContextPath("NAME"))
		return nil
	}
	t := &table{to: a.out, heads: []string{"CURRENT", "NAME", "PROJECT", "SERVER"}, cut: []bool{false, false, false, true}}
	for _, p := range places {
		mark := " "
		if p.Current {
			mark = "*"
		}
		t.add(cell{text: mark}, cell{text: p.Name}, cell{text: p.Project}, cell{text: p.Server})
	}
	t.flush()
	return nil
}

// useContext makes the default configuration a link to a context's file.
func useContext(name string) error {
	if _, err := os.Stat(client.ContextPath(name)); err != nil {
		return usagef("there is no context %s; naru context list shows which there are", name)
	}
	link := client.ContextPath("config")
	switch info, err := os.Lstat(link); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return usagef("%v", err)
	case info.Mode()&fs.ModeSymlink == 0:
		return usagef("%s is a file of its own; give it the name of a context first, as in: mv %s %s", link, link, client.ContextPath("main"))
	}
	next := link + ".next"
	_ = os.Remove(next) // of a run that was killed
	if err := os.Symlink(name+".yaml", next); err != nil {
		return usagef("%v", err)
	}
	if err := os.Rename(next, link); err != nil {
		return usagef("%v", err)
	}
	return nil
}
