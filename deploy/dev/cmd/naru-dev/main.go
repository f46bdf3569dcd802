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
			if code, entered, err := s.Enter(cmd.Context()); entered || err != nil {
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
		onSite("exec NETWORK|PROCESS -- COMMAND...", "Run a command inside a network, or where a process is", cobra.MinimumNArgs(2), execute),
		&cobra.Command{Use: "down", Short: "End the site and leave nothing behind", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return down(cmd.Context(), *state)
		}},
		windowCommand(),
	)
	for _, c := range root.Commands() {
		if c.Name() == "status" {
			c.Flags().StringP("output", "o", "json", "json")
		}
	}
	return root
}

// windowCommand is how a window's process is started.
func windowCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "window TARGETS", Hidden: true, Args: cobra.ExactArgs(1)}
	listeners := cmd.Flags().Int("listeners", 1, "how many file descriptors from 3 on are listeners")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return dev.ServeWindow(cmd.Context(), *listeners, strings.Split(args[0], ","))
	}
	return cmd
}

func runCommand(state *string) *cobra.Command {
	var o dev.Options
	var once bool
	var mode string
	cmd := &cobra.Command{Use: "run", Short: "Bring the site up and walk the main job", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&once, "once", false, "leave again after the walk")
	cmd.Flags().IntVar(&o.Servers, "servers", 3, "servers of the control plane: 1 or 3")
	cmd.Flags().StringVar(&mode, "mode", "", "namespaces, user-namespaces or loopback; the best that this machine has where it is not given")
	cmd.Flags().BoolVar(&o.WithoutLibvirt, "without-libvirt", false, "simulated hosts only")
	cmd.Flags().IntVar(&o.Fleet, "fleet", 0, "simulated hosts that the business zone has besides, in a cluster of their own")
	cmd.Flags().IntVar(&o.Agents, "agents", 1, "agents of zone business: 1 to 5")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Fleet < 0 || o.Fleet > 100_000 {
			return fmt.Errorf("--fleet %d: it is 0 to 100000", o.Fleet)
		}
		if o.Servers != 1 && o.Servers != 3 {
			return fmt.Errorf("--servers %d: it is 1 or 3", o.Servers)
		}
		if o.Agents < 1 || o.Agents > 5 {
			return fmt.Errorf("--agents %d: it is 1 to 5", o.Agents)
		}
		if o.Fleet > 0 && o.Agents > 1 {
			return fmt.Errorf("--fleet %d with --agents %d: a fleet lives in the memory of one agent", o.Fleet, o.Agents)
		}
		mode, err := dev.ParseMode(mode)
		if err != nil {
			return err
		}
		return run(cmd.Context(), *state, mode, o, once)
	}
	return cmd
}

// run claims the folder and runs the site, inside a user namespace where that is how the networks are kept apart.
func run(ctx context.Context, state string, mode dev.Mode, o dev.Options, once bool) error {
	if dev.Inside() {
		return stand(dev.WithStarter(ctx), state, mode, o, once)
	}
	if err := dev.Ready(mode, programs()); err != nil {
		return err
	}
	claim, err := dev.ClaimFolder(ctx, state, programs(), mode, dev.NewStory(os.Stderr))
	if err != nil {
		return err
	}
	defer claim.Release()
	if err := dev.Free(mode); err != nil {
		return err
	}
	if mode != dev.UserNamespaces {
		return stand(ctx, state, mode, o, once)
	}
	return ended(dev.StartInside(ctx, claim))
}

// stand brings the site up, walks, and stays until it is interrupted; it takes the site down in any case.
func stand(ctx context.Context, state string, mode dev.Mode, o dev.Options, once bool) (err error) {
	story := dev.NewStory(os.Stderr)
	s, err := dev.New(state, programs(), mode, story)
	if err != nil {
		return err
	}
	story.Say("%s", s.Means(o))
	defer func() {
		if ctx.Err() != nil {
			story.Tell("interrupted; taking the site down")
			if err != nil {
				err = errors.New("interrupted before the site was up")
			}
		}
		// Taking down must go on when the context has ended.
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
	story.Say("%s", s.Guide())
	<-ctx.Done()
	return nil
}

// down ends the site, whether its run lives or was killed.
func down(ctx context.Context, state string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	story := dev.NewStory(os.Stderr)
	if err := dev.End(ctx, state, programs(), story); err != nil {
		return err
	}
	story.Tell("down; nothing is left but logs in %s", filepath.Join(state, "log"))
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
