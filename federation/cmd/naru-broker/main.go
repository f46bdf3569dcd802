// Command naru-broker stands between the control network and one other. See federation.Config for its configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/pkg/config"
	"github.com/naru-project/naru/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitRefused = 1
	exitUsage   = 2
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("naru-broker", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/naru/broker.yaml", "configuration `FILE`")
	fingerprint := flags.Bool("fingerprint", false, "print the fingerprint of the broker's key, made if there is none yet, and end")
	debugging := flags.Bool("debug", false, "log more")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "naru-broker: %q is not understood: all is said in the configuration file\n", flags.Arg(0))
		return exitUsage
	}
	level := slog.LevelInfo
	if *debugging {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))

	settings := federation.DefaultConfig()
	if err := config.Load(*file, &settings); err != nil {
		fmt.Fprintf(stderr, "naru-broker: %v\n", err)
		return exitUsage
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	broker, err := federation.NewBroker(settings, federation.Options{Logger: log, Registerer: registry, Gatherer: registry, Version: version.Version})
	if err != nil {
		fmt.Fprintf(stderr, "naru-broker: %v\n", err)
		return exitRefused
	}
	if *fingerprint {
		fmt.Fprintln(stdout, broker.Fingerprint())
		return 0
	}
	if err := broker.Run(ctx); ctx.Err() == nil {
		fmt.Fprintf(stderr, "naru-broker: %v\n", err)
		return exitRefused
	}
	log.Info("broker ended")
	return 0
}
