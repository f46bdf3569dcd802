// Command naru-zoneagent is one of a zone's controllers.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/daemon"
	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/zoneagent"
)

func main() {
	daemon.Main(daemon.Command("naru-zoneagent", "A controller of a zone",
		runCommand(), joinCommand(), fingerprintCommand(), caCommand(), issueCommand(), statusCommand(), backupCommand(), restoreCommand(), forgetCommand()))
}

var configuration = daemon.Configuration[zoneagent.Config]{
	File: "/etc/naru/zoneagent.yaml", Load: zoneagent.LoadConfig, Log: func(c *zoneagent.Config) obs.LogConfig { return c.Log },
}

func runCommand() *cobra.Command {
	return configuration.Verb("run", "Control the zone until told to stop", func(ctx context.Context, c *zoneagent.Config, log *slog.Logger) error {
		a, err := zoneagent.New(ctx, c, log)
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}

func joinCommand() *cobra.Command {
	var tokenFile string
	cmd := configuration.Verb("join", "Ask to be let into a zone, and wait until an administrator has accepted", func(ctx context.Context, c *zoneagent.Config, log *slog.Logger) error {
		token, err := zoneagent.ReadToken(tokenFile)
		if err != nil {
			return err
		}
		zone, err := zoneagent.Join(ctx, c, log, token, func(fingerprint string) {
			fmt.Fprintf(os.Stderr, "Asked to join. The key of this agent is\n  %s\nLet an administrator compare it and accept: naru zone accept ZONE --agent %s\n", fingerprint, c.Name)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "Joined zone %s. Start the agent with: naru-zoneagent run\n", zone)
		return nil
	})
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the token of: naru zone token")
	cmd.MarkFlagRequired("token-file")
	return cmd
}

func fingerprintCommand() *cobra.Command {
	return configuration.Verb("fingerprint", "Print the fingerprint of this agent's key", func(_ context.Context, c *zoneagent.Config, log *slog.Logger) error {
		f, err := zoneagent.Fingerprint(c, log)
		if err == nil {
			fmt.Println(f)
		}
		return err
	})
}

func caCommand() *cobra.Command {
	var pin bool
	cmd := configuration.Verb("ca", "Print the certificate of the zone's authority, for clients of the edge", func(_ context.Context, c *zoneagent.Config, log *slog.Logger) error {
		certificate, thumb, err := zoneagent.CA(c, log)
		switch {
		case err != nil:
		case pin:
			fmt.Println(thumb)
		default:
			os.Stdout.Write(certificate)
		}
		return err
	})
	cmd.Flags().BoolVar(&pin, "pin", false, "print its pin instead, for zone_pin of further agents")
	cmd.AddCommand(replaceCommand())
	return cmd
}

func replaceCommand() *cobra.Command {
	var issuesIn, trusted time.Duration
	cmd := configuration.Verb("replace", "Give the zone its next authority", func(_ context.Context, c *zoneagent.Config, log *slog.Logger) error {
		if err := zoneagent.ReplaceCA(c, log, issuesIn, trusted); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "The zone's next authority issues from %s on. Until then: restart each agent, one after the other, "+
			"and give clients of the edge what naru-zoneagent ca prints now.\nThe former one is believed until %s. Until then: "+
			"issue hosts their certificates anew.\n", stamp(issuesIn), stamp(issuesIn+trusted))
		return nil
	})
	cmd.Flags().DurationVar(&issuesIn, "in", 7*24*time.Hour, "how long until it issues")
	cmd.Flags().DurationVar(&trusted, "trust-former", zoneagent.DefaultOldTrust, "how long the former one is believed after that")
	return cmd
}

func stamp(in time.Duration) string { return time.Now().Add(in).UTC().Format(time.RFC3339) }

func issueCommand() *cobra.Command {
	var host, address, out string
	cmd := configuration.Verb("issue", "Issue a certificate for a host's libvirt", func(_ context.Context, c *zoneagent.Config, log *slog.Logger) error {
		return zoneagent.Issue(c, log, host, address, out)
	})
	cmd.Flags().StringVar(&host, "host", "", "name of the host")
	cmd.Flags().StringVar(&address, "address", "", "IP address at which agents reach it")
	cmd.Flags().StringVar(&out, "out", "", "folder for cacert.pem, servercert.pem and serverkey.pem")
	for _, f := range []string{"host", "address", "out"} {
		cmd.MarkFlagRequired(f)
	}
	return cmd
}
