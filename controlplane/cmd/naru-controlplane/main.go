// Command naru-controlplane is one server of the control plane.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/controlplane"
	"github.com/naru-project/naru/pkg/daemon"
	"github.com/naru-project/naru/pkg/obs"
)

func main() {
	daemon.Main(daemon.Command("naru-controlplane", "A server of Naru's control plane",
		runCommand(), initCommand(), joinCommand(), restoreCommand(), adminCommand(), pinCommand()))
}

var configuration = daemon.Configuration[controlplane.Config]{
	File: "/etc/naru/controlplane.yaml", Load: controlplane.LoadConfig, Log: func(c *controlplane.Config) obs.LogConfig { return c.Log },
}

func runCommand() *cobra.Command {
	return configuration.Verb("run", "Serve until told to stop", func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error {
		s, err := controlplane.New(c, log)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}

func initCommand() *cobra.Command {
	var federation, admin string
	cmd := configuration.Verb("init", "Begin a new federation in an empty data folder", func(_ context.Context, c *controlplane.Config, log *slog.Logger) error {
		if err := controlplane.Init(c, log, federation, admin); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "Federation %s: start its first server with: naru-controlplane run\nIts administrator's configuration: NARU_CONFIG=%s/config.yaml naru server list\n", federation, admin)
		return nil
	})
	cmd.Flags().StringVar(&federation, "federation", "", "name of the federation, like a domain name: naru.example")
	cmd.Flags().StringVar(&admin, "admin", "", "folder for the administrator's certificate and configuration")
	cmd.MarkFlagRequired("federation")
	cmd.MarkFlagRequired("admin")
	return cmd
}

func joinCommand() *cobra.Command {
	var server, tokenFile string
	cmd := configuration.Verb("join", "Join a federation as one more server", func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error {
		token, err := controlplane.ReadToken(tokenFile)
		if err != nil {
			return err
		}
		return controlplane.Join(ctx, c, log, server, token)
	})
	cmd.Flags().StringVar(&server, "server", "", "HOST:PORT of the peer address of a server of the federation")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the token of: naru server token")
	cmd.MarkFlagRequired("server")
	cmd.MarkFlagRequired("token-file")
	return cmd
}

func restoreCommand() *cobra.Command {
	var backup string
	cmd := configuration.Verb("restore", "Begin anew from a backup, as the only server", func(_ context.Context, c *controlplane.Config, log *slog.Logger) error {
		return controlplane.Restore(c, log, backup)
	})
	cmd.Flags().StringVar(&backup, "backup", "", "file that naru server backup wrote")
	cmd.MarkFlagRequired("backup")
	return cmd
}

func adminCommand() *cobra.Command {
	var name, out string
	cmd := configuration.Verb("admin", "Let an administrator in when nobody's certificate is good any more", func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error {
		if err := controlplane.Admin(ctx, c, log, name, out); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "The configuration of administrator %s: NARU_CONFIG=%s/config.yaml naru admin list\n", name, out)
		return nil
	})
	cmd.Flags().StringVar(&name, "name", "", "of the administrator; one who is there gets a certificate for a new key")
	cmd.Flags().StringVar(&out, "out", "", "folder for the certificate, the key and the configuration")
	cmd.MarkFlagRequired("name")
	cmd.MarkFlagRequired("out")
	return cmd
}

func pinCommand() *cobra.Command {
	var ca string
	cmd := &cobra.Command{Use: "pin", Short: "Print the pin of the federation's CA, for brokers' configuration", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		pin, err := controlplane.Pin(ca)
		if err == nil {
			fmt.Println(pin)
		}
		return err
	}}
	cmd.Flags().StringVar(&ca, "ca", "", "PEM file of the CA")
	cmd.MarkFlagRequired("ca")
	return cmd
}
