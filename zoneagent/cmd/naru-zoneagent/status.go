package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/zoneagent"
)

func statusCommand() *cobra.Command {
	var output string
	var cmd *cobra.Command
	cmd = configuration.Verb("status", "Show what the running agent holds, and how it stands to others", func(ctx context.Context, c *zoneagent.Config, _ *slog.Logger) error {
		if output != "plain" && output != "json" {
			return fmt.Errorf("-o %s: it is plain or json", output)
		}
		s, err := zoneagent.ReadStatus(ctx, c)
		if err != nil {
			return err
		}
		if output == "json" {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(s)
		}
		return printStatus(cmd.OutOrStdout(), s)
	})
	cmd.Flags().StringVarP(&output, "output", "o", "plain", "plain or json")
	return cmd
}

// printStatus writes a line for each thing.
func printStatus(to io.Writer, s *zoneagent.Status) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("agent", "%s, version %s", s.Agent, s.Version)
	line("zone", "%s of federation %s", s.Zone, s.Federation)
	line("link", "%s since %s%s", s.Link.State, at(s.Link.Since), because(s.Link.Why))
	line("owner of the link", "%s", orNone(s.LinkOwner))
	line("owns clusters", "%s", orNone(strings.Join(s.Clusters, ", ")))
	for _, a := range s.Agents {
		line("hears agent", "%s, %s since %s", a.Name, map[bool]string{true: "alive", false: "silent"}[a.Alive], at(a.Since))
	}
	here := map[bool]string{true: "one of them here", false: "none of them here"}[s.Store.Here]
	switch {
	case s.Store.Problem != "":
		line("store", "does not answer%s", because(s.Store.Problem))
	case s.Store.Behind:
		line("store", "behind: nothing is done to VMs before the control plane has told all that is wanted")
	default:
		line("store", "answers")
	}
	if s.Store.Members > 0 {
		line("store's members", "%d, of which %d vote; %s", s.Store.Members, s.Store.Voters, here)
	}
	if s.Store.QuotaBytes > 0 {
		line("store's size", "%d of %d MiB", s.Store.SizeBytes>>20, s.Store.QuotaBytes>>20)
	}
	line("incarnation", "%s since %s%s", s.Store.Incarnation, at(s.Store.Begun), because(s.Store.Reason))
	if s.Audit.Objection != "" {
		line("audit log", "not countersigned beyond entry %d%s", s.Audit.Entries, because(s.Audit.Objection))
	} else {
		line("audit log", "%d entries countersigned", s.Audit.Entries)
	}
	if s.Audit.Lost > 0 {
		line("audit log", "restores of the control plane have lost what was countersigned, %d times", s.Audit.Lost)
	}
	for _, c := range s.Certificates {
		line("certificate", "of the %s, until %s", c.For, at(c.Ends))
	}
	return w.Flush()
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
