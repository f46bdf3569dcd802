// Package cli is the command line `naru`: naru NOUN VERB, with the habits of docs/cli.md. Every noun is a description
// (noun.go) from which the verbs that all nouns share are made; what only one noun can do stands in its own file.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/version"
)

// app is one run of the command line.
type app struct {
	out, err io.Writer

	configPath string
	output     string
	timeout    time.Duration
	config     *client.Config
}

// Run carries out one command line and returns the exit code: 0, or why not (pkg/problem).
func Run(ctx context.Context, args []string, out, errOut io.Writer) int {
	a := &app{out: out, err: errOut}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(errOut, "naru: %s\n", usage.text)
		return problem.ExitUsage
	}
	e := problem.From(err)
	a.explain(e, err)
	return problem.ExitCode(e.Code())
}

// explain writes what went wrong, why, and what to do.
func (a *app) explain(e *problem.Error, err error) {
	p := e.Problem
	fmt.Fprintf(a.err, "naru: %s\n", p.GetTitle())
	if e.Code() == problem.Internal && p.GetTraceId() == "" {
		fmt.Fprintf(a.err, "  %s\n", err)
		return
	}
	if p.GetDetail() != "" && len(p.GetErrors()) == 0 {
		fmt.Fprintf(a.err, "  %s\n", p.GetDetail())
	}
	for _, f := range p.GetErrors() {
		fmt.Fprintf(a.err, "  %s %s\n", f.GetField(), f.GetDetail())
	}
	switch {
	case p.GetNext() != "":
		fmt.Fprintf(a.err, "  %s\n", p.GetNext())
	case e.Code() == problem.Unavailable && a.config != nil:
		fmt.Fprintf(a.err, "  %s was asked. Is it up, and reached from here? Another: --config, or NARU_SERVER.\n", a.config.Server)
	}
}

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, a ...any) error { return usageError{fmt.Sprintf(format, a...)} }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "naru",
		Short:         "Naru: a cloud over separated networks",
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch a.output {
			case "table", "wide", "json", "yaml", "name":
				return nil
			}
			return usagef("-o %s: it is table, wide, json, yaml or name", a.output)
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", client.DefaultPath(), "configuration file (NARU_CONFIG)")
	flags.StringVarP(&a.output, "output", "o", "table", "table, wide, json, yaml or name")
	flags.DurationVar(&a.timeout, "timeout", 0, "give up after this long (30s; 15m with --wait)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v\nSee %q.", err, cmd.CommandPath()+" --help")
	})
	root.AddCommand(
		a.zone(), a.cluster(), a.host(), a.flavor(), a.image(), a.project(), a.broker(), a.vm(),
		a.operation(), a.event(), a.server(), a.token(), a.whoami(),
	)
	for _, c := range root.Commands() {
		refuseUnknownVerbs(c)
	}
	return root
}

// refuseUnknownVerbs makes `naru vm foo` an error that names the verbs, where cobra would print help and succeed.
func refuseUnknownVerbs(c *cobra.Command) {
	if c.RunE != nil {
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var verbs []string
		for _, v := range cmd.Commands() {
			verbs = append(verbs, v.Name())
		}
		return usagef("%s has no verb %q; it has %s", cmd.CommandPath(), args[0], strings.Join(verbs, ", "))
	}
}

// run gives f a client and a context that ends with --timeout, or after limit where none was given.
func (a *app) run(cmd *cobra.Command, limit time.Duration, f func(ctx context.Context, c *client.Client) error) error {
	if _, err := a.load(); err != nil {
		return err
	}
	c, err := client.New(a.config)
	if err != nil {
		return usagef("%v", err)
	}
	defer c.Close()
	ctx := cmd.Context()
	if a.timeout > 0 {
		limit = a.timeout
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return f(ctx, c)
}

// load reads the configuration once.
func (a *app) load() (*client.Config, error) {
	if a.config != nil {
		return a.config, nil
	}
	c, err := client.LoadConfig(a.configPath)
	if err != nil {
		return nil, usagef("%v", err)
	}
	a.config = c
	return c, nil
}

const (
	shortLimit = 30 * time.Second
	waitLimit  = 15 * time.Minute
	noLimit    = 0
)

// argument returns s, or for @FILE what the file holds (@- is standard input).
func argument(s string) (string, error) {
	name, ok := strings.CutPrefix(s, "@")
	if !ok {
		return s, nil
	}
	read := os.ReadFile
	if name == "-" {
		read = func(string) ([]byte, error) { return io.ReadAll(os.Stdin) }
	}
	b, err := read(name)
	if err != nil {
		return "", usagef("%v", err)
	}
	return string(b), nil
}
