// Package dial is an agent's side of a broker's zone leg: it joins with a token, renews its certificate, and opens the
// stream of a session.
package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	maxFrame = 4 << 20
	window   = 256 << 10
	// dialPatience is short: while packets are lost TCP asks ever more rarely, and a new attempt asks at once.
	dialPatience = 5 * time.Second
	// callPatience is a little more than the broker's patience with the control plane.
	callPatience = 15 * time.Second
)

// Config is all a Dialer needs; only what is marked may be left out.
type Config struct {
	// Addresses are HOST:PORT of the zone legs that lead to the control plane, tried in turn.
	Addresses []string
	// Holder has the link's key, and once it has joined its certificate.
	Holder *pki.Holder
	// DialContext stands in place of TCP. May be nil.
	DialContext func(ctx context.Context, address string) (net.Conn, error)
	// Logger may be nil.
	Logger *slog.Logger
}

// Dialer reaches the control plane through a broker. Safe for concurrent use.
type Dialer struct {
	config Config
	log    *slog.Logger
}

// New checks the configuration; nothing is dialled.
func New(config Config) (*Dialer, error) {
	if len(config.Addresses) == 0 || config.Holder == nil {
		return nil, errors.New("dialler: the address of a broker's zone leg and a holder must be given")
	}
	for _, address := range config.Addresses {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("address of a broker's zone leg: %w; want HOST:PORT", err)
		}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.DialContext == nil {
		config.DialContext = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialPatience}).DialContext(ctx, "tcp", address)
		}
	}
	return &Dialer{config: config, log: config.Logger}, nil
}

// Renew asks for a new certificate of the same id with the current one, expired or not. It is what pki.Holder.Run wants
// as its renew.
func (d *Dialer) Renew(ctx context.Context, csr []byte) ([][]byte, error) {
	config, err := d.known()
	if err != nil {
		return nil, err
	}
	var chain [][]byte
	err = d.ask(ctx, config, func(ctx context.Context, leg linkv1.ZoneLegServiceClient) error {
		out, err := leg.Renew(ctx, &linkv1.RenewRequest{Csr: csr})
		chain = out.GetCertificate().GetChain()
		return err
	})
	return chain, err
}

// Stream is a session's frames.
type Stream = grpc.BidiStreamingClient[linkv1.Frame, linkv1.Frame]

// Connect opens the stream of one session, on a connection of its own, which shows the certificate that is current now.
// Stream and connection end with ctx. One address is tried, another each time.
func (d *Dialer) Connect(ctx context.Context) (Stream, error) {
	config, err := d.known()
	if err != nil {
		return nil, err
	}
	address := d.config.Addresses[rand.IntN(len(d.config.Addresses))]
	conn, err := d.open(address, config)
	if err != nil {
		return nil, err
	}
	stream, err := linkv1.NewZoneLegServiceClient(conn).Connect(ctx)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("broker %s: %w", address, err)
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	return stream, nil
}

// known is the TLS of somebody who has joined: both ends are held to the federation's root.
func (d *Dialer) known() (*tls.Config, error) {
	if d.config.Holder.Root() == nil {
		return nil, fmt.Errorf("%w: join first", pki.ErrNoCertificate)
	}
	guard := &pki.Guard{Root: d.config.Holder.Root, Want: []pki.Role{pki.RoleBroker}}
	return guard.Client(d.config.Holder.ShortTLSCertificate), nil
}

func (d *Dialer) open(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(d.config.DialContext),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxFrame), grpc.MaxCallSendMsgSize(maxFrame)),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(2*window),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
	)
}

type question func(context.Context, linkv1.ZoneLegServiceClient) error

// ask puts a question to one address after the other until one answers, be it with a refusal.
func (d *Dialer) ask(ctx context.Context, config *tls.Config, q question) error {
	var failures []error
	for _, i := range rand.Perm(len(d.config.Addresses)) {
		address := d.config.Addresses[i]
		err := d.askOne(ctx, address, config, q)
		if err == nil {
			return nil
		}
		err = &brokerError{address, err}
		if !passing(err) || ctx.Err() != nil {
			return err
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// brokerError is what came of asking a broker. It tells what the broker said, without the words of the transport.
type brokerError struct {
	address string
	err     error
}

func (e *brokerError) Error() string {
	return fmt.Sprintf("broker %s: %s", e.address, status.Convert(e.err).Message())
}

func (e *brokerError) Unwrap() error { return e.err }

func (d *Dialer) askOne(ctx context.Context, address string, config *tls.Config, ask question) error {
	conn, err := d.open(address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	return ask(ctx, linkv1.NewZoneLegServiceClient(conn))
}

// passing tells whether asking again later may help.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	}
	return false
}
