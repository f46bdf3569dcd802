package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/zoneagent"
)

const backupMeans = `Write a copy of the zone's store to FILE, while its agents run: what is wanted and observed in the zone,
what waits to be reported, and what VMs were given at their start, secrets in it. Guard the file.`

func backupCommand() *cobra.Command {
	var file string
	cmd := configuration.Verb("backup FILE", "Write a copy of the zone's store to a file", func(ctx context.Context, c *zoneagent.Config, log *slog.Logger) error {
		size, err := zoneagent.BackUp(ctx, c, log, file)
		if err == nil {
			fmt.Fprintf(os.Stderr, "Wrote %s, %d bytes; its check sum is right.\n", file, size)
		}
		return err
	})
	cmd.Long = backupMeans
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			file = args[0]
		}
		return cobra.ExactArgs(1)(cmd, args)
	}
	return cmd
}

const newIncarnation = `The zone begins a new incarnation. VMs run on. Until the control plane has told the zone all that is wanted, it
watches its VMs and does nothing to them; then it takes over the VMs that it finds on its hosts, and goes on.`

const othersReturn = `At each other agent of the zone, while it is stopped: put DATA/store and DATA/etcd-endpoints.json out of the way, and
start it when this one runs. It comes back as a client of this one's etcd, and three agents have three members again.`

func restoreCommand() *cobra.Command {
	var file string
	cmd := configuration.Verb("restore", "Restore the zone's store from a backup, at this agent", func(ctx context.Context, c *zoneagent.Config, log *slog.Logger) error {
		if err := zoneagent.Restore(ctx, c, log, file); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "Restored the zone's store from %s. Start this agent with: naru-zoneagent run\n%s\n%s\n", file, newIncarnation, othersReturn)
		return nil
	})
	cmd.Long = `Fill the store of this agent, which is stopped and has no DATA/store/etcd any more, from a backup: the way out when the
zone's store is lost. Stop all agents of the zone first: two stores of one zone must never run.
` + newIncarnation + "\n" + othersReturn
	cmd.Flags().StringVar(&file, "backup", "", "file that naru-zoneagent backup wrote")
	cmd.MarkFlagRequired("backup")
	return cmd
}

// forgetPatience is how long a member may take to serve alone.
const forgetPatience = 2 * time.Minute

func forgetCommand() *cobra.Command {
	var yes bool
	means := `The etcd member of this agent, which is stopped, becomes the only one of the zone: the way out when most members are lost
for good. What the lost ones had and this one had not is lost with them. If they may come back, wait for them instead; and
stop all agents of the zone first: two stores of one zone must never run.
` + newIncarnation + "\n" + othersReturn
	cmd := configuration.Verb("forget-members", "Go on with this agent's etcd member alone, when most are lost", func(ctx context.Context, c *zoneagent.Config, log *slog.Logger) error {
		if !yes {
			return fmt.Errorf("nothing was done. %s\nIf that is what you want: naru-zoneagent forget-members --yes", means)
		}
		ctx, cancel := context.WithTimeout(ctx, forgetPatience)
		defer cancel()
		if err := zoneagent.ForgetMembers(ctx, c, log); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "This agent's member is the only one. Start the agent with: naru-zoneagent run\n%s\n%s\n", newIncarnation, othersReturn)
		return nil
	})
	cmd.Long = means
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}
