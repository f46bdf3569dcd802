// Package daemon is what the mains of the daemons have in common: a command line of verbs that all read one configuration
// file, and how it ends.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/obs"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/version"
)

// Command returns a daemon's command, with its verbs.
func Command(name, short string, verbs ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{Use: name, Short: short, Version: version.Version, SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(verbs...)
	return root
}

// Main runs a daemon's command until it ends by itself or is told to by SIGINT or SIGTERM, and ends the process.
func Main(root *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, root, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, root *cobra.Command, stderr io.Writer) (exit int) {
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", root.Name(), problem.Explain(err))
		return 1
	}
	return 0
}

// Configuration is the file that a daemon's verbs read, into a C.
type Configuration[C any] struct {
	// File is read where --config names no other.
	File string
	// Load reads and checks a file.
	Load func(path string) (*C, error)
	// Log is how the daemon is to log.
	Log func(*C) obs.LogConfig
}

// Verb makes a command that needs the configuration, and logs to standard error as that says.
func (f Configuration[C]) Verb(use, short string, do func(ctx context.Context, c *C, log *slog.Logger) error) *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := f.Load(path)
		if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
			return fmt.Errorf("%w; name the configuration file with --config FILE", err)
		}
		if err != nil {
			return err
		}
		log, err := obs.NewLogger(cmd.ErrOrStderr(), f.Log(c))
		if err != nil {
			return fmt.Errorf("configuration %s: %w", path, err)
		}
		return do(cmd.Context(), c, log)
	}}
	cmd.Flags().StringVar(&path, "config", f.File, "configuration file")
	return cmd
}
