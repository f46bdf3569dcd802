// Command naru-broker stands between the control network and one other. See federation.Config for its configuration.
package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/pkg/daemon"
	"github.com/naru-project/naru/pkg/obs"
)

func main() { daemon.Main(root()) }

func root() *cobra.Command {
	return daemon.Command("naru-broker", "A broker between the control network and one other", runCommand(), fingerprintCommand())
}

var configuration = daemon.Configuration[federation.Config]{
	File: "/etc/naru/broker.yaml", Load: federation.LoadConfig, Log: func(c *federation.Config) obs.LogConfig { return c.Log },
}

func runCommand() *cobra.Command {
	return configuration.Verb("run", "Stand between the networks until told to stop", federation.Run)
}

func fingerprintCommand() *cobra.Command {
	var cmd *cobra.Command
	cmd = configuration.Verb("fingerprint", "Print the fingerprint of this broker's key, made if there is none yet", func(_ context.Context, c *federation.Config, log *slog.Logger) error {
		f, err := federation.Fingerprint(c, log)
		if err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), f)
		}
		return err
	})
	return cmd
}
