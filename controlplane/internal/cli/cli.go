// Package cli is the command line `naru`: naru NOUN VERB, with the habits of docs/cli.md. Every noun is a description
// (noun.go) from which the verbs that all nouns share are made; what only one noun can do stands in its own file.
package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/version"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// app is one run of the command line.
type app struct {
	in       io.Reader
	typed    *bufio.Reader // of in, once a line of it was asked for
	out, err *screen

	configPath string
	context    string
	output     string
	timeout    time.Duration
	key        string // under which the command writes
	wrote      bool   // it has, or may have
	config     *client.Config
	command    *cobra.Command // that runs; nil before
	missing    bool           // it was said that an answer is not all there is
	inMethods  bool           // the reader names methods of the API, and is answered so
	// names lists the nouns of a kind, for completion.
	names map[string]lister
}

// formats are the values of -o.
var formats = []string{"table", "wide", "json", "yaml", "name"}

// Run carries out one command line and returns the exit code: 0, or why not (pkg/problem).
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: newScreen(out), err: newScreen(errOut), names: map[string]lister{}}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil && a.out.failed != nil {
		fmt.Fprintf(a.err, "naru: the output could not be written: %v\n", a.out.failed)
		return problem.ExitRefused
	}
	return a.explain(err)
}

// explain writes what went wrong, why, and what to do, and returns the exit code.
func (a *app) explain(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "%s %s\n", a.err.paint(red, "naru:"), printableLines(usage.text))
		return problem.ExitUsage
	}
	e := problem.From(err)
	p := e.Problem
	fmt.Fprintf(a.err, "%s %s\n", a.err.paint(red, "naru:"), printable(p.GetTitle()))
	say := func(format string, args ...any) {
		fmt.Fprintf(a.err, "  %s\n", printable(fmt.Sprintf(format, args...)))
	}
	if e.Code() == problem.Internal && p.GetTraceId() == "" { // it is of this side, and says what it is
		say("%s", err)
		return problem.ExitCode(e.Code())
	}
	switch d := p.GetDetail(); {
	case len(p.GetClusters()) > 1:
		a.refusals(p.GetClusters())
	case d != "" && !saidByFields(p):
		say("%s", a.inWords(withoutTransport(d)))
	}
	for _, f := range p.GetErrors() {
		say("%s: %s", a.inField(f.GetField()), a.inWords(f.GetDetail()))
	}
	switch next := a.nextInWords(p); {
	case next != "":
		say("%s", next)
	case e.Code() == problem.Unavailable && a.config != nil && strings.Contains(p.GetDetail(), "x509: certificate signed by unknown authority"):
		say("ca_file %s is not of the CA that signed the certificate of %s. Set ca_file to that server's CA certificate; its administrator has it.",
			cmp.Or(a.config.CAFile, "is not set, and this machine's own list"), a.config.Server)
	case e.Code() == problem.Unavailable && a.config != nil:
		say("%s was asked. Is it up, and reached from here? Another: --context, --config or NARU_SERVER.", a.config.Server)
	case e.Code() == problem.Timeout && a.config != nil:
		say("%s did not answer in time. Ask again, with a longer --timeout.", a.config.Server)
	}
	reached := withoutTransport(p.GetDetail()) == p.GetDetail()
	if code := e.Code(); a.wrote && reached && (code == problem.Timeout || code == problem.Unavailable || code == problem.LinkDown) {
		say("It may have been done: the same command with --idempotency-key %s does nothing twice.", a.key)
	}
	if draft := p.GetDraft(); draft != "" {
		say("It is kept as the draft %s: change it with naru request update %s and submit it, or delete it.", draft, draft)
	}
	if e.Code() == problem.Internal {
		say("trace id %s", p.GetTraceId())
	}
	return problem.ExitCode(e.Code())
}

// withoutTransport is a detail without what gRPC puts around the cause for which a server was not reached.
func withoutTransport(detail string) string {
	if cause, ok := strings.CutPrefix(detail, `connection error: desc = "transport: `); ok {
		return strings.TrimPrefix(strings.TrimSuffix(cause, `"`), "Error while dialing: ")
	}
	return detail
}

// saidByFields reports whether a problem's detail only says again what its fields say.
func saidByFields(p *apiv1.Problem) bool {
	var said []string
	for _, f := range p.GetErrors() {
		if f.GetDetail() == p.GetDetail() || strings.HasSuffix(p.GetDetail(), ": "+f.GetDetail()) {
			return true
		}
		said = append(said, f.GetField()+" "+f.GetDetail())
	}
	return strings.Join(said, "; ") == p.GetDetail()
}

// usageError is a command line that makes no sense.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, a ...any) error { return usageError{fmt.Sprintf(format, a...)} }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "naru",
		Short: "Naru: a cloud over separated networks",
		Long: `Naru: a cloud over separated networks

It ends with 0 when it is done; else with 1 refused, 2 wrong usage or request, 3 not found, 4 not allowed, 5 conflict,
6 not available now, 7 out of time or interrupted.`,
		Example: `  naru vm list --filter 'zone=business AND state=running'
  naru vm create web-2 --project web --image tiny --flavor s1 --zone business --wait
  naru vm show web-2 -o yaml
  naru event list --watch`,
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.command = cmd
			switch {
			case !slices.Contains(formats, a.output):
				return usagef("-o %s: it is %s", a.output, either(formats))
			case a.timeout < 0, cmd.Flags().Changed("timeout") && a.timeout == 0:
				return usagef("--timeout %s: it is longer than nothing, like 30s or 5m", a.timeout)
			case cmd.Flags().Changed("config") && cmd.Flags().Changed("context"):
				return usagef("--config names a file and --context one of yours; give one of them")
			}
			return requiredFlags(cmd)
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "configuration `file` (NARU_CONFIG; else config.yaml in your configuration folder)")
	flags.StringVar(&a.context, "context", "", "`name` of a configuration in your configuration folder (NARU_CONTEXT)")
	flags.StringVarP(&a.output, "output", "o", "table", "`format`: "+either(formats))
	flags.DurationVar(&a.timeout, "timeout", 0, "give up after this `time` (30s; 15m with --wait)")
	flags.StringVar(&a.key, "idempotency-key", "", "`key` of a command that is repeated: what was done under it is not done again")
	root.SetFlagErrorFunc(badFlag)
	a.completeWith(root, "output", formats)
	a.completeFlag(root, "context", func(*cobra.Command) []string { return client.Contexts() })
	root.AddCommand(a.catalog(), a.calendar(), a.approvalPolicy())
	root.AddCommand(
		a.request(), a.approve(), a.delegation(), a.crossing(), a.notification(), a.notificationChannel(), a.delivery(),
		a.zone(), a.cluster(), a.host(), a.flavor(), a.image(), a.project(), a.quota(), a.lease(), a.usage(), a.broker(), a.vm(), a.snapshot(),
		a.operation(), a.event(), a.server(), a.administrator(), a.audit(), a.token(), a.whoami(), a.contexts(), a.version(),
		a.role(), a.roleBinding(), a.auth(),
		a.organization(), a.user(), a.group(), a.identityProvider(), a.session(), a.login(), a.logout(), a.passwd(),
	)
	root.InitDefaultCompletionCmd("completion")
	refuseUnknownVerbs(root)
	for _, c := range root.Commands() {
		refuseUnknownVerbs(c)
	}
	return root
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Say which version this is", Args: noArguments, RunE: func(*cobra.Command, []string) error {
		if a.documents() {
			return a.document(map[string]string{"version": version.Version})
		}
		fmt.Fprintln(a.out, version.Version)
		return nil
	}}
}

// badFlag says what is wrong with a flag in words for people.
func badFlag(cmd *cobra.Command, err error) error {
	text := err.Error()
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		flag := value.GetFlag()
		text = fmt.Sprintf("--%s %s: ", flag.Name, value.GetValue())
		switch flag.Value.Type() {
		case "int", "uint32":
			text += "it is a whole number, 0 or more"
		case "duration":
			text += "it is a time like 30s, 5m or 24h, and longer than nothing"
		case "bool":
			text += "it is true or false"
		default:
			text += value.Unwrap().Error()
		}
	}
	return usagef("%s\nSee %s.", text, cmd.CommandPath()+" --help")
}

// requiredFlags refuses a command line without a flag that must be there, or with two that do not go together; cobra's own error would be
// told as one of the inside.
func requiredFlags(cmd *cobra.Command) error {
	var missing []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Annotations[cobra.BashCompOneRequiredFlag] != nil && !f.Changed {
			missing = append(missing, "--"+f.Name)
		}
	})
	if err := cmd.ValidateFlagGroups(); err != nil {
		return usagef("%s\nSee %s --help.", groupInWords(err.Error()), cmd.CommandPath())
	}
	if len(missing) == 0 {
		return nil
	}
	return usagef("%s is required\nSee %s --help.", strings.Join(missing, " and "), cmd.CommandPath())
}

// groupInWords is cobra's refusal of flags that go together, or do not, as this command line speaks.
func groupInWords(text string) string {
	var lists [][]string // the group, and which of it were given or are missing
	for _, list := range inBrackets.FindAllStringSubmatch(text, -1) {
		var flags []string
		for _, name := range strings.Fields(list[1]) {
			flags = append(flags, "--"+name)
		}
		lists = append(lists, flags)
	}
	switch {
	case len(lists) == 1 && strings.HasPrefix(text, "at least one"):
		return "give " + either(lists[0])
	case len(lists) == 2 && strings.Contains(text, "missing"):
		return strings.Join(lists[0], " and ") + " go together: give " + strings.Join(lists[1], " and ") + " too"
	case len(lists) == 2:
		return strings.Join(lists[1], " and ") + " do not go together: give one of them"
	}
	return text
}

var inBrackets = regexp.MustCompile(`\[([^\]]*)\]`)

// refuseUnknownVerbs makes `naru vm foo` an error that names the verbs, where cobra would print help and succeed.
func refuseUnknownVerbs(c *cobra.Command) {
	if c.RunE != nil || !c.HasSubCommands() {
		return
	}
	c.Args, c.SuggestionsMinimumDistance = cobra.ArbitraryArgs, 2
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var verbs []string
		for _, v := range cmd.Commands() {
			verbs = append(verbs, v.Name())
		}
		has := strings.Join(verbs, ", ")
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("%s has no %q; did you mean %s? It has %s.", cmd.CommandPath(), args[0], either(near), has)
		}
		return usagef("%s has no %q; it has %s.", cmd.CommandPath(), args[0], has)
	}
}

// either lists words: a, b or c.
func either(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// run gives f a client and a context that ends with --timeout, or after limit where none was given.
func (a *app) run(cmd *cobra.Command, limit time.Duration, f func(ctx context.Context, c *client.Client) error) error {
	if err := a.load(); err != nil {
		return err
	}
	c, err := client.New(a.config, grpc.WithChainUnaryInterceptor(a.sayWhatIsMissing))
	if err != nil {
		return usagef("%v", err)
	}
	defer c.Close()
	if err := a.named(); err != nil {
		return err
	}
	ctx := cmd.Context()
	if a.timeout > 0 {
		limit = a.timeout
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return f(client.TellRepeated(client.Under(ctx, a.key), func(why error) { fmt.Fprint(a.err, a.repeated(ctx, why)) }), c)
}

// repeated is a line that tells people for what they wait.
func (a *app) repeated(ctx context.Context, why error) string {
	p := problem.From(why).Problem
	until := ""
	if end, ok := ctx.Deadline(); ok {
		until = fmt.Sprintf(" for %s more", time.Until(end).Round(time.Second))
	}
	return fmt.Sprintf("%s: %s. It is tried again%s.\n", printable(p.GetTitle()), printable(a.inWords(withoutTransport(p.GetDetail()))), until)
}

// sayWhatIsMissing tells people when an answer is less than everything that was acknowledged before: what is not in it may be
// there all the same. It notes that the command writes.
func (a *app) sayWhatIsMissing(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get(client.IdempotencyKey)) > 0 {
		a.wrote = true
	}
	var header metadata.MD
	err := invoke(ctx, method, req, reply, cc, append(opts, grpc.Header(&header))...)
	if said := header.Get(gateway.ConsistencyHeader); err == nil && len(said) > 0 && !a.missing {
		if since, ok := gateway.ReadLocalSince(said[0]); ok {
			a.missing = true
			fmt.Fprintf(a.err, "The zone is cut off since %s and answers for itself: what is outside it is not shown.\n",
				since.Local().Format(time.DateTime))
		} else if said[0] == gateway.Stale {
			a.missing = true
			fmt.Fprintln(a.err, "No server leads: this is what the server that was asked knows, and may be old.")
		}
	}
	return err
}

// load reads the configuration once.
func (a *app) load() error {
	if a.config != nil {
		return nil
	}
	path := a.configPath
	switch {
	case path != "":
	case a.context != "":
		path = client.ContextPath(a.context)
		if _, err := os.Stat(path); err != nil {
			return usagef("there is no context %s; naru context list shows which there are", a.context)
		}
	default:
		path = client.DefaultPath()
	}
	c, err := client.LoadConfig(path)
	if err != nil {
		return usagef("%v", err)
	}
	// Who has logged in acts as themselves, unless this one command names a token.
	if os.Getenv("NARU_TOKEN") == "" {
		if s, err := client.LoadSession(c.Server); err != nil {
			return usagef("%v", err)
		} else if s != nil {
			c.Token, c.TokenFile = s.Token(), ""
		}
	}
	a.config = c
	return nil
}

const (
	shortLimit = 30 * time.Second
	waitLimit  = 15 * time.Minute
	noLimit    = 0
)

// argument returns s, or for @FILE what the file holds (@- is standard input).
func (a *app) argument(s string) (string, error) {
	name, ok := strings.CutPrefix(s, "@")
	if !ok {
		return s, nil
	}
	read := os.ReadFile
	if name == "-" {
		read = func(string) ([]byte, error) { return io.ReadAll(a.in) }
	}
	b, err := read(name)
	if err != nil {
		return "", usagef("%v", err)
	}
	return string(b), nil
}

// confirm asks; anything but y or yes is no, and so is the end of the input or of ctx.
func (a *app) confirm(ctx context.Context, question string) bool {
	fmt.Fprint(a.err, question)
	answer := make(chan string, 1)
	go func() { // it may outlive the question: nothing else reads, and the process ends soon
		line, _ := a.readLine(false)
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return false
	case line := <-answer:
		return line == "y" || line == "yes"
	}
}
