package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
)

// shorten is a command that makes a noun end earlier, with a reason: do does it, and prints what came of it.
func (a *app) shorten(of, short, example string, in []string, do func(ctx context.Context, c *client.Client, name string, s scope, until *timestamppb.Timestamp, reason string) error) *cobra.Command {
	var s scope
	var until, reason string
	cmd := &cobra.Command{Use: "shorten " + strings.ToUpper(of), Short: short, Args: oneArgument, Example: example}
	a.scopeFlags(cmd, in, &s)
	a.completeArguments(cmd, of, 1, &s)
	cmd.Flags().StringVar(&until, "until", "", "the new `time` of its end")
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is kept")
	_ = cmd.MarkFlagRequired("until")
	_ = cmd.MarkFlagRequired("reason")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		at, err := time.Parse(time.RFC3339, until)
		if err != nil {
			return usagef("--until %s: it is a time like 2026-12-31T18:00:00+09:00", until)
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(in, &s)
			return do(ctx, c, args[0], s, timestamppb.New(at), reason)
		})
	}
	return cmd
}
