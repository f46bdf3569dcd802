// Command dex is an OpenID Connect provider for tests: dex (github.com/dexidp/dex), with its state in memory. Its own command is not
// built, since that needs a module of dex's which is published apart and later.
//
// It reads its configuration from the file named, then lines from standard input, and ends with it. `forget MAIL` takes a person away;
// `groups MAIL GROUP…` puts one into other groups.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/connectors"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/server/tokens"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/dexidp/dex/web"
)

type config struct {
	// Address to listen on, with Certificate and Key: PEM files.
	Address, Issuer, Certificate, Key string
	Client                            storage.Client
	People                            []person
	// TokenSeconds is how long ID tokens last.
	TokenSeconds int
}

type person struct {
	Mail, Password, Login, Name, ID string
	Groups                          []string
	Unverified                      bool
}

func main() {
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	c := config{}
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	state := &kept{Storage: memory.New(log)}
	if err := state.CreateClient(ctx, c.Client); err != nil {
		return err
	}
	if err := state.CreateConnector(ctx, storage.Connector{ID: connectors.LocalConnector, Type: connectors.LocalConnector, Name: "Email"}); err != nil {
		return err
	}
	for _, p := range c.People {
		hash, err := bcrypt.GenerateFromPassword([]byte(p.Password), bcrypt.MinCost+6)
		if err != nil {
			return err
		}
		verified := !p.Unverified
		if err := state.CreatePassword(ctx, storage.Password{
			Email: p.Mail, Hash: hash, Username: p.Login, PreferredUsername: p.Login, Name: p.Name, UserID: p.ID, Groups: p.Groups, EmailVerified: &verified,
		}); err != nil {
			return err
		}
	}
	valid := time.Duration(c.TokenSeconds) * time.Second
	keys, err := (&signer.LocalConfig{KeysRotationPeriod: "6h"}).Open(ctx, state, valid, time.Now, log)
	if err != nil {
		return err
	}
	s, err := server.NewServer(ctx, server.Config{
		Issuer: c.Issuer, Storage: state, SkipApprovalScreen: true, IDTokensValidFor: valid, RefreshTokenPolicy: tokens.NewRefreshStrategy(true, 0, 0, 0, nil), Signer: keys,
		Web: server.WebConfig{WebFS: web.FS()}, Logger: log,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	ended := make(chan error, 1)
	go func() { ended <- http.ServeTLS(l, s, c.Certificate, c.Key) }()
	go func() { ended <- state.obey(ctx) }()
	return <-ended
}

// kept is a storage that can be read while a refresh token is changed, as dex does: in memory alone it waits for itself.
type kept struct {
	storage.Storage
	mu sync.Mutex
}

func (k *kept) UpdateRefreshToken(ctx context.Context, id string, change func(storage.RefreshToken) (storage.RefreshToken, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	was, err := k.GetRefresh(ctx, id)
	if err != nil {
		return err
	}
	is, err := change(was)
	if err != nil {
		return err
	}
	return k.Storage.UpdateRefreshToken(ctx, id, func(storage.RefreshToken) (storage.RefreshToken, error) { return is, nil })
}

func (k *kept) obey(ctx context.Context) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		var err error
		switch words[0] {
		case "forget":
			err = errors.Join(k.DeletePassword(ctx, words[1]), k.revoke(ctx, words[1]))
		case "groups":
			err = k.UpdatePassword(ctx, words[1], func(p storage.Password) (storage.Password, error) { p.Groups = words[2:]; return p, nil })
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
	}
	return lines.Err()
}

// revoke deletes the refresh tokens of somebody, as dex's own API does: for a person who is gone it would answer that it failed.
func (k *kept) revoke(ctx context.Context, mail string) error {
	all, err := k.ListRefreshTokens(ctx)
	for _, r := range all {
		if r.Claims.Email == mail {
			err = errors.Join(err, k.DeleteRefresh(ctx, r.ID))
		}
	}
	return err
}
