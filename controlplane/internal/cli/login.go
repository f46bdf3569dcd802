package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/version"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// loginLimit is how long a login may take, with a person who types.
const loginLimit = 5 * time.Minute

func (a *app) login() *cobra.Command {
	var provider string
	var device, local bool
	cmd := &cobra.Command{
		Use: "login [USER]", Short: "Log in; you act as yourself until you log out, or for twelve hours",
		Long: `Log in; you act as yourself until you log out, or for twelve hours.

The password is asked for and not shown; where standard input is no terminal, it is read from there, a line each for what is
asked. The session counts only where it was begun: at this zone's edge, or in the control network. 
With --local an operator of a zone logs in at its edge while it is cut off from the control plane, and may do there what their roles in
the zone let them. Do that only where you know that it is cut off: whoever answers in its place could try passwords against the answer.

With --provider you log in through an identity provider: in your browser, which is opened where there is one, and whose address is
printed; or with the name and the password of a directory. With --device you type a code in a browser on another machine.`,
		Args: arguments(0, 1), Example: "  naru login kim\n  naru login --provider corp\n  naru login --provider corp --device\n  naru login --local kim",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.load(); err != nil {
				return err
			}
			a.config.Token, a.config.TokenFile = "", "" // an old session says nothing of who logs in now
			return a.run(cmd, loginLimit, func(ctx context.Context, c *client.Client) error {
				user := strings.Join(args, "")
				if local && (provider != "" || device) {
					return usagef("--local is for a password of Naru's own; leave out --provider and --device")
				}
				p, err := loginProvider(ctx, c, provider)
				switch {
				case err != nil:
					return err
				case p.GetKind() == apiv1.LoginProvider_OIDC && user != "":
					return usagef("identity provider %s says who you are; leave out %s", provider, user)
				case p.GetKind() == apiv1.LoginProvider_OIDC:
					return a.logInAt(ctx, c, p, device)
				case device:
					return usagef("--device is for an identity provider to which one goes with a browser")
				}
				if user == "" {
					if user, err = a.prompt(ctx, "User: "); err != nil {
						return err
					}
				}
				if local {
					return a.logInLocally(ctx, c, user)
				}
				return a.logIn(ctx, c, user, provider)
			})
		},
	}
	cmd.Flags().StringVar(&provider, "provider", "", "log in through this identity provider")
	cmd.Flags().BoolVar(&local, "local", false, "as an operator of this zone, which is cut off")
	cmd.Flags().BoolVar(&device, "device", false, "without a browser on this machine: type a code on another one")
	a.completeFlag(cmd, "provider", func(cmd *cobra.Command) []string { return a.loginProviders(cmd) })
	return cmd
}

func (a *app) logIn(ctx context.Context, c *client.Client, user, provider string) error {
	device, err := client.Device()
	if err != nil {
		return usagef("%v", err)
	}
	typed := &apiv1.Secrets{Device: device, IdentityProvider: provider}
	if typed.Password, err = a.prompt(ctx, "Password: "); err != nil {
		return err
	}
	s, m, err := c.LogIn(ctx, user, typed, with())
	if problem.Is(problem.FromStatus(err), problem.CodeNeeded) {
		if typed.Code, err = a.prompt(ctx, "Code: "); err != nil {
			return err
		}
		s, m, err = c.LogIn(ctx, user, typed, with())
	}
	if err != nil {
		return err
	}
	if err := a.keep(s); err != nil {
		return err
	}
	if m.GetMustChangePassword() {
		fmt.Fprintln(a.err, "The password was set by somebody else. Choose your own: ten characters or more.")
		if err := a.changePassword(ctx, s, typed.GetPassword()); err != nil {
			return err
		}
	}
	a.greet(s)
	return nil
}

// logInLocally logs in at the edge of a zone that is cut off.
func (a *app) logInLocally(ctx context.Context, c *client.Client, user string) error {
	device, err := client.Device()
	if err != nil {
		return usagef("%v", err)
	}
	zone, err := client.KnownZone(a.config.Server)
	if err != nil {
		return usagef("%v", err)
	}
	typed := &apiv1.Secrets{Device: device}
	if typed.Password, err = a.prompt(ctx, "Password: "); err != nil {
		return err
	}
	s, err := c.LogInLocally(ctx, zone, user, typed, with())
	if err != nil {
		return err
	}
	if err := a.keep(s); err != nil {
		return err
	}
	a.greet(s)
	return nil
}

// with says what logs in.
func with() string { return fmt.Sprintf("naru %s on %s", version.Version, runtime.GOOS) }

func (a *app) keep(s *client.Session) error {
	s.Server = a.config.Server
	if err := s.Save(); err != nil {
		return usagef("the session cannot be kept: %v", err)
	}
	return nil
}

func (a *app) greet(s *client.Session) {
	where := "in the control network"
	if s.Zone != "" {
		where = "at zone " + s.Zone
	}
	fmt.Fprintf(a.err, "You are logged in as %s %s until %s.\n", s.User, where, s.ExpiresAt.Local().Format(time.DateTime))
	if s.Local {
		fmt.Fprintf(a.err, "The zone is cut off from the control plane; the session ends when it is back. Meanwhile you may do, to everything in the zone: %s.\n", strings.Join(s.Permissions, ", "))
	}
}

// changePassword asks for a new password until one is taken. It calls as the session's user, which the client that logged in does
// not yet.
func (a *app) changePassword(ctx context.Context, s *client.Session, old string) error {
	config := *a.config
	config.Token, config.TokenFile = s.Token(), ""
	c, err := client.New(&config)
	if err != nil {
		return usagef("%v", err)
	}
	defer c.Close()
	for {
		next, err := a.prompt(ctx, "New password: ")
		if err != nil {
			return err
		}
		again, err := a.prompt(ctx, "The same again: ")
		if err != nil {
			return err
		}
		if again != next {
			fmt.Fprintln(a.err, "The two are not the same.")
			continue
		}
		err = a.showAgain(ctx, c, s, apiv1.UserService_ChangePassword_FullMethodName, &apiv1.Secrets{Password: old, NewPassword: next}, func(secrets *apiv1.Sealed) error {
			_, err := c.Users.ChangePassword(ctx, &apiv1.ChangePasswordRequest{Secrets: secrets})
			return err
		})
		if !problem.Is(problem.FromStatus(err), problem.Invalid) {
			return err
		}
		a.explain(err)
	}
}

func (a *app) passwd() *cobra.Command {
	return &cobra.Command{
		Use: "passwd", Short: "Change your password; your other sessions end", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asUser(cmd, func(ctx context.Context, _ *client.Client, s *client.Session) error {
				old, err := a.prompt(ctx, "Old password: ")
				if err != nil {
					return err
				}
				return a.changePassword(ctx, s, old)
			})
		},
	}
}

func (a *app) logout() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End your session", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.asUser(cmd, func(ctx context.Context, c *client.Client, s *client.Session) error {
				_, err := c.Sessions.LogOut(ctx, &apiv1.LogOutRequest{})
				if problem.Is(problem.FromStatus(err), problem.TokenInvalid) || problem.Is(problem.FromStatus(err), problem.TokenExpired) {
					err = nil // it has ended already
				}
				return errors.Join(err, client.ForgetSession(s.Server))
			})
		},
	}
}

// asUser runs f with the session that was begun at the configured server.
func (a *app) asUser(cmd *cobra.Command, f func(ctx context.Context, c *client.Client, s *client.Session) error) error {
	return a.run(cmd, loginLimit, func(ctx context.Context, c *client.Client) error {
		s, err := client.LoadSession(a.config.Server)
		if err != nil {
			return usagef("%v", err)
		}
		if s == nil {
			return problem.Newf(problem.Unauthenticated, "Log in: naru login.", "you are not logged in at %s", a.config.Server)
		}
		return f(ctx, c, s)
	})
}

// showAgain seals what was typed, asking for the password where it is not there yet and for a code where one is needed, and does
// what it is for.
func (a *app) showAgain(ctx context.Context, c *client.Client, s *client.Session, method string, typed *apiv1.Secrets, do func(*apiv1.Sealed) error) (err error) {
	if typed.GetPassword() == "" && len(typed.GetTicket()) == 0 {
		if typed.Password, err = a.prompt(ctx, "Password: "); err != nil {
			return err
		}
	}
	once := func() error {
		secrets, err := c.Seal(ctx, s.For(method), typed)
		if err != nil {
			return err
		}
		return do(secrets)
	}
	if err = once(); !problem.Is(problem.FromStatus(err), problem.CodeNeeded) {
		return err
	}
	if typed.Code, err = a.prompt(ctx, "Code: "); err != nil {
		return err
	}
	return once()
}

// prompt reads one line: from a terminal without showing what is typed, but for a name.
func (a *app) prompt(ctx context.Context, question string) (string, error) {
	return a.line(ctx, question, question != "User: ")
}

// line reads one; hidden, without showing on a terminal what is typed.
func (a *app) line(ctx context.Context, question string, hidden bool) (string, error) {
	fmt.Fprint(a.err, question)
	type answer struct {
		text string
		err  error
	}
	read := make(chan answer, 1)
	go func() { // it may outlive the question: nothing else reads, and the process ends soon
		text, err := a.readLine(hidden)
		read <- answer{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return "", ctx.Err()
	case got := <-read:
		if got.err != nil {
			return "", usagef("%s: nothing was typed", strings.TrimSuffix(question, ": "))
		}
		return got.text, nil
	}
}

func (a *app) readLine(hidden bool) (string, error) {
	if f, ok := a.in.(*os.File); ok && hidden && term.IsTerminal(int(f.Fd())) {
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return string(b), err
	}
	if a.typed == nil {
		a.typed = bufio.NewReader(a.in)
	}
	line, err := a.typed.ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	return line, err
}
