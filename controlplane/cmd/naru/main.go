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
	context.AfterFunc(ctx, stop) // who interrupts a second time does not want to wait
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
