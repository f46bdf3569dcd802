package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// scope is where names are looked up; what a noun does not use stays empty.
type scope struct{ project, zone, cluster, vm string }

// query is what list and watch ask.
type query struct {
	scope
	filter, order, token string
	size                 uint32
}

// change is one message of a watch.
type change[M any] = client.Change[M]

// noun describes one kind of thing; a verb whose function is nil does not exist for it.
type noun[M proto.Message] struct {
	name, plural, short string
	// in names the scope flags: "project", "zone", "cluster".
	in      []string
	columns []column[M]
	// filter is an example of one.
	filter string
	// history is true of what is only ever forgotten, so that a deletion says nothing, and of which there is so much that a
	// list shows the newest.
	history bool
	// narrow adds flags that only this noun's list has.
	narrow func(f *pflag.FlagSet)
	list   func(ctx context.Context, c *client.Client, q query) (page []M, next string, err error)
	get    func(ctx context.Context, c *client.Client, name string, s scope) (M, error)
	watch  func(ctx context.Context, c *client.Client, q query, after string) (func() (change[M], error), error)
	remove func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error)
	// make describes `create`; fixed adds the flags of fields that are set then and never again. put places a noun.
	make   string
	fixed  func(f *pflag.FlagSet, m M)
	put    func(m M, s scope)
	create func(ctx context.Context, c *client.Client, m M) (*apiv1.Operation, error)
	// fields adds the flags of fields that may be changed.
	fields func(f *pflag.FlagSet, m M)
	// options adds flags of update that are no fields.
	options func(f *pflag.FlagSet)
	update  func(ctx context.Context, c *client.Client, m M, mask *fieldmaskpb.FieldMask, s scope) (M, error)
}

// people is what people call the nouns.
func (n noun[M]) people() string {
	switch n.name {
	case "vm":
		return "VMs"
	case "token":
		return "access tokens"
	}
	return n.plural
}

// command makes `naru NOUN` with the verbs all nouns share and those given.
func command[M proto.Message](a *app, n noun[M], verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: n.name, Aliases: []string{n.plural}, Short: n.short}
	if n.list != nil {
		a.names[n.name] = namesOf(n)
		cmd.AddCommand(listCommand(a, n))
	}
	if n.get != nil {
		cmd.AddCommand(showCommand(a, n))
	}
	if n.create != nil {
		cmd.AddCommand(createCommand(a, n))
	}
	if n.update != nil {
		cmd.AddCommand(updateCommand(a, n))
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
		cmd.Flags().StringVar(s.field(name), name, "", "id or name of the "+name)
		a.completeNames(cmd, name, name)
	}
}

func (s *scope) field(name string) *string {
	return map[string]*string{"project": &s.project, "zone": &s.zone, "cluster": &s.cluster, "vm": &s.vm}[name]
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
	var limit int
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List " + n.people(),
		Example: fmt.Sprintf("  naru %s list --filter '%s'", n.name, n.filter),
		Args:    noArguments,
	}
	a.scopeFlags(cmd, n.in, &q.scope)
	cmd.Flags().StringVar(&q.filter, "filter", "", "`terms` joined by AND: a column, one of = != < <= > >= ~ (contains), a value")
	cmd.Flags().StringVar(&q.order, "order-by", "", "a `column`, with \" desc\" to turn it round")
	usual := 0
	if n.history {
		usual = newest
	}
	cmd.Flags().IntVar(&limit, "limit", usual, "at most this `many`; 0: all")
	if n.narrow != nil {
		n.narrow(cmd.Flags())
	}
	if n.watch != nil {
		cmd.Flags().BoolVarP(&watch, "watch", "w", false, "stay and show changes as they come")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case limit < 0:
			return usagef("--limit %d: it is 0 or more", limit)
		case watch && (limit > 0 && cmd.Flags().Changed("limit") || q.order != ""):
			return usagef("--watch shows everything as it comes; --limit and --order-by do not go with it")
		case watch:
			return a.run(cmd, noLimit, func(ctx context.Context, c *client.Client) error {
				a.defaults(n.in, &q.scope)
				return watchNouns(ctx, a, c, n, q)
			})
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &q.scope)
			all, more, err := listAll(ctx, c, n, q, limit)
			if err != nil {
				return err
			}
			if more && !cmd.Flags().Changed("limit") {
				defer fmt.Fprintf(a.err, "These are %d of them; --limit 0 shows all.\n", limit)
			}
			if len(all) == 0 && !a.documents() {
				fmt.Fprintf(a.err, "There are no such %s.\n", n.people())
				return nil
			}
			return printList(a, n.columns, all)
		})
	}
	return cmd
}

// newest is how many a list shows of what has happened.
const newest = 100

// listAll reads pages until there are no more, or as many as limit, where that is not 0. It reports whether there are more.
func listAll[M proto.Message](ctx context.Context, c *client.Client, n noun[M], q query, limit int) (all []M, more bool, err error) {
	for {
		if q.size = 1000; limit > 0 {
			q.size = uint32(min(limit-len(all), 1000))
		}
		page, next, err := n.list(ctx, c, q)
		if err != nil {
			return nil, false, err
		}
		all = append(all, page...)
		if next == "" || limit > 0 && len(all) >= limit {
			return all, next != "", nil
		}
		q.token = next
	}
}

// watchNouns shows what is there and then every change, until ctx ends.
func watchNouns[M proto.Message](ctx context.Context, a *app, c *client.Client, n noun[M], q query) error {
	began, broken, bookmarks := false, false, 0
	known := map[string]bool{} // a watch that is taken up again tells more deletions than the reader has had puts
	p := newRows(a, n.columns)
	err := client.Watch(ctx, func(ctx context.Context, after string) (func() (change[M], error), error) {
		return n.watch(ctx, c, q, after)
	}, func(ch change[M]) error {
		began, broken = true, false
		if ch.Type == apiv1.WatchType_BOOKMARK {
			bookmarks++ // the second one stands behind what is there at first
		} else if id := textOf(ch.Noun, "id"); ch.Type == apiv1.WatchType_PUT || known[id] {
			if known[id] = ch.Type == apiv1.WatchType_PUT; !known[id] {
				delete(known, id)
			}
			if err := showChange(a, n, p, ch); err != nil {
				return err
			}
		}
		if bookmarks > 1 && !a.documents() && a.output != "name" {
			p.flush()
		}
		return a.out.failed
	}, func(err error) error {
		if !began {
			return err
		}
		if !broken {
			broken = true
			fmt.Fprintln(a.err, "The stream broke off; it goes on when the server can be reached again.")
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// showChange writes one change of a watch.
func showChange[M proto.Message](a *app, n noun[M], p *rows[M], ch change[M]) error {
	deleted := ch.Type == apiv1.WatchType_DELETE
	switch {
	case a.documents():
		return a.changed(ch.Type, ch.Noun)
	case a.output == "name":
		fmt.Fprintln(a.out, strings.ToLower(ch.Type.String()), nameOf(ch.Noun))
	case deleted && !n.history:
		p.gone(ch.Noun)
	case !deleted:
		p.put(ch.Noun)
	}
	return nil
}

func showCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var s scope
	cmd := &cobra.Command{
		Use:     "show NAME",
		Aliases: []string{"get"},
		Short:   "Show all of one " + n.name + ", by name or id",
		Args:    oneArgument,
	}
	a.scopeFlags(cmd, n.in, &s)
	a.completeArguments(cmd, n.name, 1, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			m, err := n.get(ctx, c, args[0], s)
			if err != nil {
				return err
			}
			if a.output == "table" {
				return a.describe(m)
			}
			return printOne(a, m, n.columns)
		})
	}
	return cmd
}

func deleteCommand[M proto.Message](a *app, n noun[M]) *cobra.Command {
	var s scope
	var w waiting
	var etag string
	cmd := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete " + n.people(),
		Args:    someArguments,
	}
	a.scopeFlags(cmd, n.in, &s)
	etagFlag(cmd, &etag)
	w.flags(cmd)
	a.completeArguments(cmd, n.name, 0, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if etag != "" && len(args) > 1 {
			return usagef("--etag is the revision of one %s, and %d were named", n.name, len(args))
		}
		return a.run(cmd, w.limit(), func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			// All are asked for before any is waited for, and one that is refused does not keep the others.
			var first error
			refused := func(err error) {
				switch {
				case err == nil:
				case first == nil:
					first = err
				default:
					a.explain(err)
				}
			}
			var under []*apiv1.Operation
			for _, name := range args {
				op, err := n.remove(ifMatch(ctx, etag), c, name, s)
				if refused(err); err == nil {
					under = append(under, op)
				}
			}
			for _, op := range under {
				if len(under) > 1 && w.wait && !op.GetDone() {
					fmt.Fprintf(a.err, "%s %s\n", op.GetKind(), printable(op.GetTarget().GetName()))
				}
				refused(a.finish(ctx, c, op, w))
			}
			return first
		})
	}
	a.asks(cmd, deletes(n.name, n.people()))
	return cmd
}

func etagFlag(cmd *cobra.Command, etag *string) {
	cmd.Flags().StringVar(etag, "etag", "", "only if it still has this `revision`, as show -o json gives it")
}

// ifMatch makes the calls of a context conditional on a revision, where one is given.
func ifMatch(ctx context.Context, etag string) context.Context {
	if etag == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "if-match", etag)
}

// action makes a verb of a noun that takes one name and answers with an operation.
func (a *app) action(noun, verb, short string, in []string, call func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error)) *cobra.Command {
	var s scope
	var w waiting
	cmd := &cobra.Command{Use: verb + " NAME", Short: short, Args: oneArgument}
	a.scopeFlags(cmd, in, &s)
	a.completeArguments(cmd, noun, 1, &s)
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

// set makes a verb of a noun that gives one field one value.
func set[M proto.Message](a *app, n noun[M], verb, short, field string, change func(M)) *cobra.Command {
	var s scope
	cmd := &cobra.Command{Use: verb + " NAME", Short: short, Args: oneArgument}
	a.scopeFlags(cmd, n.in, &s)
	a.completeArguments(cmd, n.name, 1, &s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(n.in, &s)
			m := fresh[M]()
			setText(m, "id", args[0])
			change(m)
			m, err := n.update(ctx, c, m, &fieldmaskpb.FieldMask{Paths: []string{field}}, s)
			if err != nil {
				return err
			}
			return printOne(a, m, n.columns)
		})
	}
	return cmd
}

var (
	noArguments   = arguments(0, 0)
	oneArgument   = arguments(1, 1)
	someArguments = arguments(1, many)
)

// many is no bound of arguments.
const many = -1

// arguments refuses a command line with less arguments, or with more.
func arguments(least, most int) cobra.PositionalArgs {
	words := []string{"no argument", "one argument", "two arguments", "three arguments"}
	takes := ""
	switch {
	case least == most:
		takes = words[least]
	case most == many:
		takes = "at least " + words[least]
	case least == 0:
		takes = "at most " + words[most]
	default:
		takes = strings.Fields(words[least])[0] + " to " + words[most]
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most == many || len(args) <= most) {
			return nil
		}
		given := strconv.Itoa(len(args))
		if most == 0 {
			given = strconv.Quote(strings.Join(args, " "))
		}
		return usagef("%s takes %s, and was given %s\nUsage: %s", cmd.CommandPath(), takes, given, cmd.UseLine())
	}
}
