package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var serverColumns = []column[*apiv1.Server]{
	{head: "NAME", value: (*apiv1.Server).GetName},
	{head: "ROLE", value: func(m *apiv1.Server) string {
		if !m.GetMember() {
			return "not a member"
		}
		return lower(m.GetRole())
	}},
	{head: "VOTER", value: func(m *apiv1.Server) string { return strconv.FormatBool(m.GetVoter()) }},
	{head: "HEALTHY", value: func(m *apiv1.Server) string { return strconv.FormatBool(m.GetHealthy()) }},
	{head: "APPLIED", value: (*apiv1.Server).GetAppliedIndex},
	{head: "SESSIONS", value: func(m *apiv1.Server) string { return strconv.Itoa(int(m.GetSessions())) }},
	{head: "API", value: (*apiv1.Server).GetApiAddress},
	{head: "PEER", value: (*apiv1.Server).GetPeerAddress, wide: true},
	{head: "VERSION", value: (*apiv1.Server).GetVersion, wide: true},
	{head: "ID", value: (*apiv1.Server).GetId, wide: true},
}

func (a *app) serverNoun() noun[*apiv1.Server] {
	return noun[*apiv1.Server]{
		name: "server", plural: "servers", short: "Servers of the control plane", in: []string{}, columns: serverColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Server, string, error) {
			r, err := c.Servers.ListServers(ctx, &apiv1.ListServersRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetServers(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Server, error) {
			r, err := c.Servers.GetServer(ctx, &apiv1.GetServerRequest{Server: name})
			return r.GetServer(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Servers.DeleteServer(ctx, &apiv1.DeleteServerRequest{Server: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) server() *cobra.Command {
	return command(a, a.serverNoun(), a.serverToken(), a.backUp())
}

func (a *app) serverToken() *cobra.Command {
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "token", Short: "Make a token with which one server may join", Args: noArguments}
	lifetimeFlag(cmd, &lifetime, "lifetime", time.Hour, "how long it can be used")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Servers.CreateServerToken(ctx, &apiv1.CreateServerTokenRequest{LifetimeSeconds: uint32(lifetime.Seconds())})
			if err != nil {
				return err
			}
			return a.secret("token", r.GetToken(), r.GetExpiresAt().AsTime())
		})
	}
	return cmd
}

// secret shows what is shown once.
func (a *app) secret(what, value string, until time.Time) error {
	if a.output == "json" || a.output == "yaml" {
		return a.document(map[string]string{what: value, "expires_at": until.UTC().Format(time.RFC3339)})
	}
	fmt.Fprintln(a.out, value)
	fmt.Fprintf(a.err, "Shown once; valid until %s.\n", until.Local().Format(time.DateTime))
	return nil
}

func (a *app) backUp() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write a consistent copy of the replicated state to a file, and read it back", Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				return usagef("a backup is read back from the disk before it counts; name a file, not -")
			}
			if _, err := os.Lstat(args[0]); err == nil && !force {
				return usagef("%s is there already; name another file, or say with --force that it is to be replaced", args[0])
			}
			return a.run(cmd, waitLimit, func(ctx context.Context, c *client.Client) error {
				s, err := c.Servers.BackUp(ctx, &apiv1.BackUpRequest{})
				if err != nil {
					return err
				}
				var backup string
				var sum []byte
				n, err := save(args[0], func() ([]byte, error) {
					r, err := s.Recv()
					if err == nil {
						backup, sum = cmp.Or(r.GetBackup(), backup), r.GetSha256()
					}
					return r.GetChunk(), err
				}, func() []byte { return sum })
				if err != nil {
					return err
				}
				fmt.Fprintf(a.err, "%s: %d bytes.\n", args[0], n)
				if backup == "" {
					return nil
				}
				if _, err := c.Servers.ConfirmBackUp(ctx, &apiv1.ConfirmBackUpRequest{Backup: backup}); err != nil {
					fmt.Fprintf(a.err, "The file is whole; zones keep what it has all the same: %s\n", problem.Of(err).GetDetail())
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there; it is, once the new one is whole")
	return cmd
}

// save writes the pieces to a file that appears only when it is whole: when the disk gives back what has the SHA-256 that is
// known behind the last piece.
func save(path string, next func() ([]byte, error), want func() []byte) (int, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return 0, usagef("a file in the folder %s cannot be made: %v; name another, or make it first", filepath.Dir(path), causeOf(err))
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for n := 0; ; {
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			if err := f.Sync(); err != nil {
				return n, err
			}
			if err := readBack(f.Name(), want()); err != nil {
				return n, err
			}
			if err := os.Rename(f.Name(), path); err != nil {
				return n, err
			}
			return n, syncFolder(filepath.Dir(path))
		}
		if err != nil {
			return n, err
		}
		if _, err := f.Write(chunk); err != nil {
			return n, err
		}
		n += len(chunk)
	}
}

// causeOf is what the system says of a file, without its name.
func causeOf(err error) error {
	var of *os.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// syncFolder has a file's new name outlive a power cut.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func readBack(path string, want []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return problem.Newf(problem.Internal, "Look at the disk, and make another backup.", "what was written is not what was sent: the file has the SHA-256 %x, and the server sent %x", sum.Sum(nil), want)
	}
	return nil
}
