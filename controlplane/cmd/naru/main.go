// Command naru is the command line of Naru.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/naru-project/naru/controlplane/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
