package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var administratorColumns = []column[*apiv1.Administrator]{
	{head: "NAME", value: (*apiv1.Administrator).GetName},
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
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(out, 0o700); err != nil {
			return usagef("%v", err)
		}
		if err := makeFile(filepath.Join(out, "admin.key"), &pem.Block{Type: "PRIVATE KEY", Bytes: der}); err != nil {
			return err
		}
		if err := makeFile(filepath.Join(out, "admin.csr"), &pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}); err != nil {
			return err
		}
		fmt.Fprintln(a.out, pki.Fingerprint(key.Public()))
		fmt.Fprintf(a.err, "Keep %s; it goes nowhere. Give %s to an administrator, for: naru admin create NAME --csr @admin.csr\n",
			filepath.Join(out, "admin.key"), filepath.Join(out, "admin.csr"))
		return nil
	}
	return cmd
}

// makeFile writes a file that is not there yet, for its owner only.
func makeFile(path string, block *pem.Block) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usagef("%s is there already; name another folder, so that no key is lost", path)
	}
	if err != nil {
		return usagef("%v", err)
	}
	defer f.Close()
	if err := pem.Encode(f, block); err != nil {
		return err
	}
	return f.Close()
}

func (a *app) createAdministrator() *cobra.Command {
	var request string
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "create NAME --csr @FILE", Short: "Make an administrator, and print the certificate for the key of a request", Args: oneArgument}
	cmd.Flags().StringVar(&request, "csr", "", "certificate request of the new administrator's key, or @FILE: naru admin request")
	cmd.Flags().DurationVar(&lifetime, "lifetime", 0, "how long the certificate lives (2160h)")
	cmd.MarkFlagRequired("csr")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		csr, err := a.readRequest(request)
		if err != nil {
			return err
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Administrators.CreateAdministrator(ctx, &apiv1.CreateAdministratorRequest{
				Administrator: &apiv1.Administrator{Name: args[0]}, Csr: csr, LifetimeSeconds: uint32(lifetime.Seconds()),
			})
			if err != nil {
				return err
			}
			return a.certificate(a.out, r.GetAdministrator(), r.GetChain())
		})
	}
	return cmd
}

// renewAdministrator renews the caller's own certificate in place, or prints another's.
func (a *app) renewAdministrator() *cobra.Command {
	var request string
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "renew [NAME --csr @FILE]", Short: "Renew your own certificate in its file; with NAME, print one for another's key", Args: cobra.MaximumNArgs(1)}
	cmd.Flags().StringVar(&request, "csr", "", "certificate request of the administrator's key, or @FILE")
	cmd.Flags().DurationVar(&lifetime, "lifetime", 0, "how long the certificate lives (2160h)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 0) != (request == "") {
			return usagef("NAME and --csr go together; without both, your own certificate is renewed")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			in := &apiv1.RenewAdministratorRequest{LifetimeSeconds: uint32(lifetime.Seconds())}
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
				return a.certificate(a.out, r.GetAdministrator(), r.GetChain())
			}
			var text bytes.Buffer
			if err := a.certificate(&text, r.GetAdministrator(), r.GetChain()); err != nil {
				return err
			}
			left := text.Bytes()
			_, err = save(a.config.CertificateFile, func() ([]byte, error) {
				if left == nil {
					return nil, io.EOF
				}
				b := left
				left = nil
				return b, nil
			})
			return err
		})
	}
	return cmd
}

// certificate prints a chain, and says whose it is.
func (a *app) certificate(to io.Writer, m *apiv1.Administrator, chain [][]byte) error {
	for _, der := range chain {
		if err := pem.Encode(to, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.err, "Administrator %s, key %s; valid until %s.\n", m.GetName(), m.GetFingerprint(), m.GetExpiresAt().AsTime().Local().Format(time.DateTime))
	return nil
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
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer)
}
