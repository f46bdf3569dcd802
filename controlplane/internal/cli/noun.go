package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// scope is where names are looked up; what a noun does not use stays empty.
type scope struct{ project, zone, cluster string }

// query is what list and watch ask.
type query struct {
	scope
	filter, order, token string
	size                 uint32
}

// change is one message of a watch.
type change[M any] struct {
	kind     apiv1.WatchType_Value
	revision string
	noun     M
}

// noun describes one kind of thing; a verb whose function is nil does not exist for it.
type noun[M proto.Message] struct {
	name, plural, short string
	// in names the scope flags: "project", "zone", "cluster".
	in      []string
	columns []column[M]
	list    func(ctx context.Context, c *client.Client, q query) (page []M, next string, err error)
	get     func(ctx context.Context, c *client.Client, name string, s scope) (M, error)
	watch   func(ctx context.Context, c *client.Client, q query, after string) (func() (change[M], error), error)
	remove  func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error)
}

// command makes `naru NOUN` with the verbs all nouns share and those given.
func command[M proto.Message](a *app, n noun[M], verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: n.name, Aliases: []string{n.plural}, Short: n.short}
	if n.list != nil {
		cmd.AddCommand(listCommand(a, n))
	}
	if n.get != nil {
		cmd.AddCommand(showCommand(a, n))
	}
	cmd.AddCommand(verbs...)
	if n.remove != nil {
		cmd.AddCommand(deleteCommand(a, n))
	}
	return cmd
}

// scopeFlags adds the flags that s's noun is looked up by, with defaults from the configuration.
func (a *app) scopeFlags(cmd *cobra.Command, in []string, s *scope) {
	for _, name := range in {
		p := map[string]*string{"project": &s.project, "zone": &s.zone, "cluster": &s.cluster}[name]
		cmd.Flags().StringVar(p, name, "", "id or name of the "+name)
	}
}

// defaults fills what the flags left empty from the configuration.
func (a *app) defaults(in []string, s *scope) {
	for _, name := range in {
		switch {
		case name == "project" && s.project == "":
			s.project = a.config.Project
		case name == "zone" && s.zone == "":
			s.zone = a.config.Zone
		}
	}
}

func listCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var q query
	var watch bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List " + n.plural,
		Args:    noArguments,
	}
	a.scopeFlags(cmd, n.in, &q.scope)
	cmd.Flags().StringVar(&q.filter, "filter", "", `terms joined by AND: state=RUNNING AND name~web`)
	cmd.Flags().StringVar(&q.order, "order-by", "", "a column, with \" desc\" to turn it round")
	if n.watch != nil {
		cmd.Flags().BoolVarP(&watch, "watch", "w", false, "stay and show changes as they come")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		limit := shortLimit
		if watch {
			limit = noLimit
		}
		return a.run(cmd, limit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &q.scope)
			if watch {
				return watchNouns(ctx, a, c, n, q)
			}
			var all []M
			for q.size = 1000; ; {
				page, next, err := n.list(ctx, c, q)
				if err != nil {
					return err
				}
				all = append(all, page...)
				if next == "" {
					return printList(a, n.columns, all)
				}
				q.token = next
			}
		})
	}
	return cmd
}

// watchNouns prints a row for each change, and takes the stream up again where it broke off.
func watchNouns[M proto.Message](ctx context.Context, a *app, c *client.Client, n noun[M], q query) error {
	p := newRowPrinter(a, n.columns)
	after := ""
	for broke := 0; ; {
		recv, err := n.watch(ctx, c, q, after)
		for err == nil {
			var ch change[M]
			if ch, err = recv(); err != nil {
				break
			}
			broke, after = 0, ch.revision
			if ch.kind != apiv1.WatchType_BOOKMARK {
				if perr := p.print(ch.kind, ch.noun); perr != nil {
					return perr
				}
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if broke++; !transient(err) || broke > 30 {
			return err
		}
		if !pause(ctx, broke) {
			return nil
		}
	}
}

// received adapts a generated watch stream.
func received[R any, M proto.Message](s grpc.ServerStreamingClient[R], err error, read func(*R) change[M]) (func() (change[M], error), error) {
	if err != nil {
		return nil, err
	}
	return func() (change[M], error) {
		m, err := s.Recv()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return change[M]{}, err
		}
		return read(m), nil
	}, nil
}

func showCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var s scope
	cmd := &cobra.Command{
		Use:     "show NAME",
		Aliases: []string{"get"},
		Short:   "Show one " + n.name + ", by name or id",
		Args:    oneArgument,
	}
	a.scopeFlags(cmd, n.in, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			m, err := n.get(ctx, c, args[0], s)
			if err != nil {
				return err
			}
			return printOne(a, m, n.columns)
		})
	}
	return cmd
}

func deleteCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var s scope
	var w waiting
	cmd := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete " + n.plural,
		Args:    someArguments,
	}
	a.scopeFlags(cmd, n.in, &s)
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			for _, name := range args {
				op, err := n.remove(ctx, c, name, s)
				if err != nil {
					return err
				}
				if err := a.finish(ctx, c, op, w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

// action makes a verb that takes one name and answers with an operation.
func (a *app) action(use, short string, in []string, call func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error)) *cobra.Command {
	var s scope
	var w waiting
	cmd := &cobra.Command{Use: use + " NAME", Short: short, Args: oneArgument}
	a.scopeFlags(cmd, in, &s)
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			a.defaults(in, &s)
			op, err := call(ctx, c, args[0], s)
			if err != nil {
				return err
			}
			return a.finish(ctx, c, op, w)
		})
	}
	return cmd
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, and was given %q", cmd.CommandPath(), strings.Join(args, " "))
	}
	return nil
}

func oneArgument(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("%s takes one name; it was given %d\nUsage: %s", cmd.CommandPath(), len(args), cmd.UseLine())
	}
	return nil
}

func someArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("%s takes at least one name\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
	}
	return nil
}
