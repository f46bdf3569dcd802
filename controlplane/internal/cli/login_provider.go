package cli

import (
	"cmp"
	"context"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// loginProvider finds an identity provider among those through which one can log in; none where none is named.
func loginProvider(ctx context.Context, c *client.Client, name string) (*apiv1.LoginProvider, error) {
	if name == "" {
		return nil, nil
	}
	o, err := c.Sessions.GetLoginOptions(ctx, &apiv1.GetLoginOptionsRequest{})
	if err != nil {
		return nil, err
	}
	var has []string
	for _, p := range o.GetIdentityProviders() {
		if has = append(has, p.GetName()); p.GetName() == name {
			return p, nil
		}
	}
	next := "Log in with a password of Naru's: naru login USER."
	if len(has) > 0 {
		next = "It is " + either(has) + "."
	}
	return nil, problem.Newf(problem.NotFound, next, "nobody can log in through identity provider %s", name)
}

// loginProviders completes a flag with their names.
func (a *app) loginProviders(cmd *cobra.Command) (out []string) {
	_ = a.run(cmd, completionTime, func(ctx context.Context, c *client.Client) error {
		o, err := c.Sessions.GetLoginOptions(ctx, &apiv1.GetLoginOptionsRequest{})
		for _, p := range o.GetIdentityProviders() {
			out = append(out, p.GetName())
		}
		return err
	})
	return out
}

// logInAt begins a session at an identity provider to which one goes with a browser.
func (a *app) logInAt(ctx context.Context, c *client.Client, p *apiv1.LoginProvider, elsewhere bool) error {
	device, err := client.Device()
	if err != nil {
		return usagef("%v", err)
	}
	var s *client.Session
	if elsewhere {
		s, err = a.logInElsewhere(ctx, c, p, device)
	} else {
		s, err = a.logInHere(ctx, c, p, device)
	}
	if err != nil {
		return err
	}
	if err := a.keep(s); err != nil {
		return err
	}
	a.greet(s)
	return nil
}

func (a *app) logInHere(ctx context.Context, c *client.Client, p *apiv1.LoginProvider, device []byte) (*client.Session, error) {
	d, err := open(p)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	e, err := c.BeginProviderLogin(ctx, p.GetName(), d.redirect)
	if err != nil {
		return nil, err
	}
	code, err := a.await(ctx, d, e)
	if err != nil {
		return nil, err
	}
	s, _, err := c.FinishProviderLogin(ctx, e, e.GetState(), code, device, with())
	return s, err
}

// logInElsewhere asks until the person has been where they type a code.
func (a *app) logInElsewhere(ctx context.Context, c *client.Client, p *apiv1.LoginProvider, device []byte) (*client.Session, error) {
	e, err := c.BeginProviderLogin(ctx, p.GetName(), "")
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(a.err, "Go to %s with a browser, on any machine, and type %s.\n", e.GetUrl(), e.GetUserCode())
	wait := time.Duration(max(1, e.GetIntervalSeconds())) * time.Second
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		s, next, err := c.FinishProviderLogin(ctx, e, "", "", device, with())
		if s != nil || err != nil {
			return s, err
		}
		wait = max(wait, next)
	}
}

// atProviderAgain has the user of a session show there anew who they are.
func (a *app) atProviderAgain(ctx context.Context, c *client.Client, s *client.Session, p *apiv1.LoginProvider) (*apiv1.Secrets, error) {
	d, err := open(p)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	e, err := c.BeginProviderStepUp(ctx, s, d.redirect)
	if err != nil {
		return nil, err
	}
	code, err := a.await(ctx, d, e)
	return e.Secrets(e.GetState(), code, nil), err
}

// door is where the browser on this machine comes back to.
type door struct {
	net.Listener
	redirect string
	path     string
}

// open listens where a provider sends people back.
func open(p *apiv1.LoginProvider) (*door, error) {
	u, err := url.Parse(p.GetLoopbackRedirect())
	if err != nil || u.Scheme != "http" {
		return nil, usagef("identity provider %s sends nobody back to this machine", p.GetName())
	}
	at := u.Hostname()
	if at == "localhost" {
		at = "127.0.0.1"
	}
	if ip := net.ParseIP(at); ip == nil || !ip.IsLoopback() {
		return nil, usagef("identity provider %s sends people to %s, which is not this machine", p.GetName(), u.Host)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(at, cmp.Or(u.Port(), "0")))
	if err != nil {
		return nil, usagef("nothing can be listened to on this machine (%v); try --device", err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	u.Host = net.JoinHostPort(u.Hostname(), port)
	return &door{Listener: l, redirect: u.String(), path: cmp.Or(u.Path, "/")}, nil
}

// await sends the browser to the provider, and returns the code with which it comes back.
func (a *app) await(ctx context.Context, d *door, e *client.Errand) (string, error) {
	type answer struct {
		code string
		err  error
	}
	came := make(chan answer, 1)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Referrer-Policy", "no-referrer")
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != d.path || "http://"+r.Host+d.path != d.redirect || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(e.GetState())) != 1 {
			http.Error(w, "This is not the answer to the login that was begun here.", http.StatusBadRequest)
			return
		}
		got := answer{code: q.Get("code")}
		if said := q.Get("error"); said != "" || got.code == "" {
			got.err = problem.Newf(problem.Unauthenticated, "Begin again: naru login.", "the identity provider let nobody in: %s", strings.ToValidUTF8(strings.Map(visible, cmp.Or(said, "it sent no code")), ""))
		}
		select {
		case came <- got:
			fmt.Fprintln(w, "You can close this window, and go on where you began. 이 창을 닫고 시작한 곳에서 계속하십시오.")
		default:
			http.Error(w, "It has been answered already.", http.StatusConflict)
		}
	})}
	go func() { _ = server.Serve(d.Listener) }() // it ends with the server
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // the browser gets its answer, or does not wait for it
	}()
	fmt.Fprintf(a.err, "Log in with your browser:\n%s\n", e.GetUrl())
	browse(ctx, e.GetUrl())
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case got := <-came:
		return got.code, got.err
	}
}

// visible leaves out what controls a terminal.
func visible(r rune) rune {
	if r < ' ' || r == 0x7f || r > 0x7f && r < 0xa0 {
		return -1
	}
	return r
}

// browse opens a page where there is a browser: the one that BROWSER names, or the desktop's. Where there is none the person reads where to
// go.
func browse(ctx context.Context, page string) {
	program := os.Getenv("BROWSER")
	if program == "" && os.Getenv("DISPLAY")+os.Getenv("WAYLAND_DISPLAY") != "" {
		program = "xdg-open"
	}
	if path, err := exec.LookPath(program); err == nil {
		if cmd := exec.CommandContext(context.WithoutCancel(ctx), path, page); cmd.Start() == nil {
			go func() { _ = cmd.Wait() }()
		}
	}
}
