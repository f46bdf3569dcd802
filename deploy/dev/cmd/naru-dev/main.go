// Command naru-dev brings the whole federation up on one machine, walks its main job, and lets a script cut links and
// kill processes. See docs/site.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/deploy/dev"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	var exit exitCode
	switch {
	case err == nil:
	case errors.As(err, &exit):
		os.Exit(int(exit))
	default:
		fmt.Fprintln(os.Stderr, "naru-dev:", err)
		os.Exit(1)
	}
}

// exitCode ends the program with another program's code; what there was to say has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func root() *cobra.Command {
	root := &cobra.Command{Use: "naru-dev", Short: "The whole federation on one machine", SilenceUsage: true, SilenceErrors: true}
	state := root.PersistentFlags().String("state", ".naru-dev", "folder of the site")
	// onSite makes a command that needs a running site.
	onSite := func(use, short string, args cobra.PositionalArgs, do func(cmd *cobra.Command, s *dev.Site, args []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			s, err := dev.Open(*state, programs())
			if err != nil {
				return err
			}
			if code, entered, err := dev.Enter(cmd.Context(), s.Mode, s.Anchor); entered || err != nil {
				return ended(code, err)
			}
			return do(cmd, s, args)
		}}
	}
	root.AddCommand(
		runCommand(state),
		onSite("status", "Show the running site as JSON", cobra.NoArgs, func(_ *cobra.Command, s *dev.Site, _ []string) error { return show(s) }),
		onSite("cut ZONE", "Take a zone's link down", cobra.ExactArgs(1), func(cmd *cobra.Command, s *dev.Site, args []string) error { return s.Cut(cmd.Context(), args[0]) }),
		onSite("heal ZONE", "Take a zone's link up again", cobra.ExactArgs(1), func(cmd *cobra.Command, s *dev.Site, args []string) error { return s.Heal(cmd.Context(), args[0]) }),
		onSite("kill PROCESS", "End a process with SIGKILL", cobra.ExactArgs(1), func(cmd *cobra.Command, s *dev.Site, args []string) error { return s.Kill(cmd.Context(), args[0]) }),
		onSite("start PROCESS", "Start a process that was killed", cobra.ExactArgs(1), func(cmd *cobra.Command, s *dev.Site, args []string) error { return s.Start(cmd.Context(), args[0]) }),
		onSite("exec NETWORK -- COMMAND...", "Run a command inside a network", cobra.MinimumNArgs(2), execute),
		onSite("down", "End the site and leave nothing behind", cobra.NoArgs, func(cmd *cobra.Command, s *dev.Site, _ []string) error { return s.Down(cmd.Context()) }),
		&cobra.Command{Use: "window TARGETS", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			return dev.ServeWindow(cmd.Context(), strings.Split(args[0], ","))
		}},
	)
	for _, c := range root.Commands() {
		if c.Name() == "status" {
			c.Flags().StringP("output", "o", "json", "json")
		}
	}
	return root
}

func runCommand(state *string) *cobra.Command {
	var o dev.Options
	var once bool
	cmd := &cobra.Command{Use: "run", Short: "Bring the site up and walk the main job", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&once, "once", false, "leave again after the walk")
	cmd.Flags().IntVar(&o.Servers, "servers", 3, "servers of the control plane: 1 or 3")
	cmd.Flags().BoolVar(&o.WithoutLibvirt, "without-libvirt", false, "simulated hosts only")
	cmd.Flags().IntVar(&o.Agents, "agents", 1, "agents of zone business: 1 to 5")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Servers != 1 && o.Servers != 3 {
			return fmt.Errorf("--servers %d: it is 1 or 3", o.Servers)
		}
		if o.Agents < 1 || o.Agents > 5 {
			return fmt.Errorf("--agents %d: it is 1 to 5", o.Agents)
		}
		mode := dev.ChooseMode()
		if code, entered, err := dev.Enter(cmd.Context(), mode, nil); entered || err != nil {
			return ended(code, err)
		}
		return run(cmd.Context(), *state, mode, o, once)
	}
	return cmd
}

// run brings the site up, walks, and stays until it is interrupted; it takes the site down in any case.
func run(ctx context.Context, state string, mode dev.Mode, o dev.Options, once bool) error {
	story := dev.NewStory(os.Stderr)
	s, err := dev.New(state, programs(), mode, story)
	if err != nil {
		return err
	}
	if mode == dev.Loopback {
		story.Say("naru-dev: neither root nor user namespaces are to be had: everything runs on loopback, NOTHING IS SEPARATED, and hosts are simulated.")
	}
	defer func() {
		// The context has ended when the user interrupted; taking down must go on.
		ending, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Down(ending); err != nil {
			fmt.Fprintln(os.Stderr, "naru-dev: taking the site down:", err)
			return
		}
		story.Tell("down; nothing is left but logs in %s", filepath.Join(state, "log"))
	}()
	if err := s.Up(ctx, o); err != nil {
		return err
	}
	if err := s.DoWalk(ctx, o); err != nil {
		return err
	}
	if err := show(s); err != nil || once {
		return err
	}
	for _, n := range s.Networks {
		story.Say("          %-11s %-38s NARU_CONFIG=%s", n.Name, n.API, n.CLIConfig)
	}
	story.Say("          Try:  NARU_CONFIG=%s bin/naru vm list", s.Networks[len(s.Networks)-1].CLIConfig)
	story.Say("          Ctrl-C ends the site and leaves nothing behind.")
	<-ctx.Done()
	return nil
}

func show(s *dev.Site) error {
	b, err := s.JSON()
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", b)
	return err
}

func execute(cmd *cobra.Command, s *dev.Site, args []string) error {
	c, err := s.Command(cmd.Context(), args[0], args[1:]...)
	if err != nil {
		return err
	}
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = c.Run()
	if c.ProcessState != nil {
		return ended(c.ProcessState.ExitCode(), nil)
	}
	return err
}

func ended(code int, err error) error {
	if err == nil && code != 0 {
		return exitCode(code)
	}
	return err
}

// programs returns the folder of the programs: where this one lies.
func programs() string {
	self, err := os.Executable()
	if err != nil {
		return "bin"
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return filepath.Dir(self)
}
