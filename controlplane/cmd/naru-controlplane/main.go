// Command naru-controlplane is one server of the control plane.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/controlplane"
	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "naru-controlplane:", problem.Explain(err))
		os.Exit(1)
	}
}

func root() *cobra.Command {
	root := &cobra.Command{
		Use: "naru-controlplane", Short: "A server of Naru's control plane", Version: version.Version,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(runCommand(), initCommand(), joinCommand(), restoreCommand(), adminCommand(), pinCommand())
	return root
}

// configured makes a command that needs the configuration.
func configured(use, short string, do func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error) *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := controlplane.LoadConfig(path)
		if err != nil {
			return err
		}
		log, err := obs.NewLogger(os.Stderr, c.Log)
		if err != nil {
			return err
		}
		return do(cmd.Context(), c, log)
	}}
	cmd.Flags().StringVar(&path, "config", "/etc/naru/controlplane.yaml", "configuration file")
	return cmd
}

func runCommand() *cobra.Command {
	return configured("run", "Serve until told to stop", func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error {
		s, err := controlplane.New(c, log)
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}

func initCommand() *cobra.Command {
	var federation, admin string
	cmd := configured("init", "Begin a new federation in an empty data folder", func(_ context.Context, c *controlplane.Config, log *slog.Logger) error {
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
	cmd := configured("join", "Join a federation as one more server", func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error {
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
	cmd := configured("restore", "Begin anew from a backup, as the only server", func(_ context.Context, c *controlplane.Config, log *slog.Logger) error {
		return controlplane.Restore(c, log, backup)
	})
	cmd.Flags().StringVar(&backup, "backup", "", "file that naru server backup wrote")
	cmd.MarkFlagRequired("backup")
	return cmd
}

func adminCommand() *cobra.Command {
	var name, out string
	cmd := configured("admin", "Let an administrator in when nobody's certificate is good any more", func(ctx context.Context, c *controlplane.Config, log *slog.Logger) error {
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
