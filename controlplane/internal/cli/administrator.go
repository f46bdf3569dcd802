package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/adminfiles"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var administratorColumns = []column[*apiv1.Administrator]{
	{head: "NAME", value: (*apiv1.Administrator).GetName},
	{head: "USER", value: (*apiv1.Administrator).GetUser},
	{head: "EXPIRES", value: func(m *apiv1.Administrator) string { return m.GetExpiresAt().AsTime().Local().Format(time.DateTime) }},
	{head: "FINGERPRINT", value: (*apiv1.Administrator).GetFingerprint},
	{head: "BY", value: (*apiv1.Administrator).GetCreatedBy, wide: true},
	{head: "ID", value: (*apiv1.Administrator).GetId, wide: true},
}

func (a *app) administratorNoun() noun[*apiv1.Administrator] {
	return noun[*apiv1.Administrator]{
		name: "admin", plural: "admins", short: "Administrators of the federation, known by certificates", in: []string{}, filter: "name~k", columns: administratorColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Administrator, string, error) {
			r, err := c.Administrators.ListAdministrators(ctx, &apiv1.ListAdministratorsRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetAdministrators(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Administrator, error) {
			r, err := c.Administrators.GetAdministrator(ctx, &apiv1.GetAdministratorRequest{Administrator: name})
			return r.GetAdministrator(), err
		},
		remove: func(ctx context.Context, c *client.Client, name string, s scope) (*apiv1.Operation, error) {
			r, err := c.Administrators.DeleteAdministrator(ctx, &apiv1.DeleteAdministratorRequest{Administrator: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) administrator() *cobra.Command {
	return command(a, a.administratorNoun(), a.requestAdministrator(), a.createAdministrator(), a.renewAdministrator())
}

// requestAdministrator makes a key, which stays where it is made, and the request that an administrator is shown.
func (a *app) requestAdministrator() *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "request", Short: "Make a key here, and a certificate request to show an administrator", Args: noArguments}
	cmd.Flags().StringVar(&out, "out", ".", "folder for admin.key and admin.csr")
	cmd.RunE = func(*cobra.Command, []string) error {
		key, csr, err := adminfiles.NewKey()
		if err != nil {
			return err
		}
		if err := adminfiles.WriteRequest(out, key, csr); err != nil {
			return usagef("%v", err)
		}
		fmt.Fprintln(a.out, pki.Fingerprint(key.Public()))
		fmt.Fprintf(a.err, "Keep %s; it goes nowhere. Give %s to an administrator, for: naru admin create NAME --csr @admin.csr\n",
			filepath.Join(out, adminfiles.Key), filepath.Join(out, adminfiles.Request))
		return nil
	}
	return cmd
}

func (a *app) createAdministrator() *cobra.Command {
	var request, user string
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "create NAME --csr @FILE", Short: "Make an administrator, and print the certificate for the key of a request", Args: oneArgument}
	cmd.Flags().StringVar(&request, "csr", "", "certificate request of the new administrator's key, or @FILE: naru admin request")
	lifetimeFlag(cmd, &lifetime, "lifetime", 0, "how long the certificate lives (2160h)")
	cmd.Flags().StringVar(&user, "user", "", "the person who it is; without it they decide on no request")
	a.completeNames(cmd, "user", "user")
	cmd.MarkFlagRequired("csr")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		csr, err := a.readRequest(request)
		if err != nil {
			return err
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Administrators.CreateAdministrator(ctx, &apiv1.CreateAdministratorRequest{
				Administrator: &apiv1.Administrator{Name: args[0], User: user}, Csr: csr, LifetimeSeconds: uint32(lifetime.Seconds()),
			})
			if err != nil {
				return err
			}
			return a.certificate(r.GetAdministrator(), r.GetChain())
		})
	}
	return cmd
}

// renewAdministrator renews the caller's own certificate in place, or prints another's.
func (a *app) renewAdministrator() *cobra.Command {
	var request, user string
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "renew [NAME --csr @FILE]", Short: "Renew your own certificate in its file; with NAME, print one for another's key", Args: arguments(0, 1)}
	cmd.Flags().StringVar(&request, "csr", "", "certificate request of the administrator's key, or @FILE")
	lifetimeFlag(cmd, &lifetime, "lifetime", 0, "how long the certificate lives (2160h)")
	cmd.Flags().StringVar(&user, "user", "", "the person who it is")
	a.completeNames(cmd, "user", "user")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) != (request == "") {
			return usagef("NAME and --csr go together; without both, your own certificate is renewed")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			in := &apiv1.RenewAdministratorRequest{LifetimeSeconds: uint32(lifetime.Seconds()), User: user}
			own := len(args) == 0
			if own {
				me, err := c.AccessTokens.WhoAmI(ctx, &apiv1.WhoAmIRequest{})
				if err != nil {
					return err
				}
				if me.GetKind() != "admin" {
					return usagef("you are taken for %s %s, and have no administrator's certificate", me.GetKind(), me.GetName())
				}
				in.Administrator = me.GetName()
				if in.Csr, err = requestFor(a.config.KeyFile); err != nil {
					return err
				}
			} else {
				var err error
				in.Administrator = args[0]
				if in.Csr, err = a.readRequest(request); err != nil {
					return err
				}
			}
			r, err := c.Administrators.RenewAdministrator(ctx, in)
			if err != nil {
				return err
			}
			if !own {
				return a.certificate(r.GetAdministrator(), r.GetChain())
			}
			if err := adminfiles.WriteChain(a.config.CertificateFile, r.GetChain()); err != nil {
				return usagef("certificate_file: %v", err)
			}
			a.tellCertificate(r.GetAdministrator())
			return nil
		})
	}
	return cmd
}

// certificate prints a chain, and says whose it is.
func (a *app) certificate(m *apiv1.Administrator, chain [][]byte) error {
	a.out.Write(adminfiles.Chain(chain)) // the screen keeps the error
	a.tellCertificate(m)
	return nil
}

func (a *app) tellCertificate(m *apiv1.Administrator) {
	fmt.Fprintf(a.err, "Administrator %s, key %s; valid until %s.\n", m.GetName(), m.GetFingerprint(), local(m.GetExpiresAt()))
}

// readRequest reads a certificate request in PEM.
func (a *app) readRequest(s string) ([]byte, error) {
	text, err := a.argument(s)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, usagef("--csr is no certificate request in PEM; naru admin request makes one. A file is given as @FILE")
	}
	return block.Bytes, nil
}

// requestFor makes a certificate request for the key in a file.
func requestFor(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("key_file: %v", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, usagef("key_file %s holds no key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, usagef("key_file %s: %v", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, usagef("key_file %s holds no key that can sign", path)
	}
	return adminfiles.RequestFor(signer)
}
