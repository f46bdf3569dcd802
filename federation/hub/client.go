package hub

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

const (
	maxFrame    = 4 << 20
	maxAnnounce = 8 << 20
	window      = 256 << 10
	connWindow  = 8 << 20
	// maxQueries bounds how many questions of the zone side are worked on at a time.
	maxQueries = 64
	// queryPatience is a little less than the broker's, so that an answer still finds its asker.
	queryPatience = 8 * time.Second
	sessionKey    = "naru-session"
	endedKey      = "naru-ended"
)

// Client is this server's side of one broker's hub leg.
type Client struct {
	config Config

	mu   sync.Mutex
	view View
}

// View is how a broker stands, as this server sees it.
type View struct {
	Connected bool
	Seen      time.Time // when it was heard last; zero: never
	Reason    string    // why it is not reached
	// Version, and Expires, until when its certificate is good, are what it said last; zero where it said nothing.
	Version string
	Expires time.Time
}

// View returns how the broker stands now. Safe for concurrent use.
func (c *Client) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view.Connected {
		c.view.Seen = time.Now()
	}
	return c.view
}

// saw notes how the broker stands.
func (c *Client) saw(change func(*View)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.view)
}

// New checks the configuration; nothing is dialled before Run.
func New(config Config) (*Client, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	return &Client{config: config}, nil
}

// Run keeps the announce stream until ctx ends, whose cause it returns. It dials again for ever, within seconds. When it
// returns, every session's Serve has returned.
func (c *Client) Run(ctx context.Context) error {
	defer c.config.Metrics.forget(c.config.Broker)
	return c.keep(ctx, c.round)
}

// keep has one round after the other, each of which tells for how long the broker was heard.
func (c *Client) keep(ctx context.Context, round func(context.Context) (time.Duration, error)) error {
	log := c.config.Logger.With("broker", c.config.Broker, "address", c.config.Address)
	retry := firstRetry
	for {
		heard, err := round(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.config.Metrics.failures.WithLabelValues(c.config.Broker).Inc()
		if heard >= proven {
			retry = firstRetry
		}
		c.saw(func(v *View) {
			if v.Connected {
				v.Seen = time.Now()
			}
			v.Connected, v.Reason = false, reasonOf(err)
		})
		log.Warn("broker not reached", "error", err, "retry_in", retry)
		timer := time.NewTimer(retry/2 + rand.N(retry)/2)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		retry = min(2*retry, lastRetry)
	}
}

// round is one connection: any failure ends it and all its sessions. It returns for how long the broker was heard.
func (c *Client) round(ctx context.Context) (heard time.Duration, err error) {
	conn, err := c.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	r := &round{
		Client:   c,
		leg:      linkv1.NewHubLegServiceClient(conn),
		queries:  make(chan struct{}, maxQueries),
		sessions: make(chan struct{}, c.config.MaxSessions),
	}
	defer r.work.Wait()
	defer cancel()
	if r.announce, err = r.leg.Announce(ctx); err != nil {
		return 0, err
	}
	r.work.Go(func() { r.publish(ctx) })
	return r.listen(ctx)
}

func (c *Client) dial() (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(pki.KeyClient(c.config.Fingerprint, c.config.Certificate))),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnnounce), grpc.MaxCallSendMsgSize(maxAnnounce)),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
	}
	dial := c.config.DialContext
	if dial == nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialPatience}).DialContext(ctx, "tcp", address)
		}
	}
	options = append(options, grpc.WithContextDialer(dial))
	return grpc.NewClient("passthrough:///"+c.config.Address, options...)
}

// reasonOf is an error without gRPC's words around it.
func reasonOf(err error) string {
	var told interface{ GRPCStatus() *status.Status }
	if errors.As(err, &told) {
		return told.GRPCStatus().Message()
	}
	return err.Error()
}

// round is the life of one announce stream.
type round struct {
	*Client
	leg      linkv1.HubLegServiceClient
	announce grpc.BidiStreamingClient[linkv1.AnnounceRequest, linkv1.AnnounceResponse]
	work     sync.WaitGroup
	// Tokens: what is at work is bounded.
	queries, sessions chan struct{}

	sending sync.Mutex
	schema  uint32 // of the listening goroutine
}

func (r *round) say(word *linkv1.AnnounceRequest) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	return r.announce.Send(word)
}

// publish tells the broker each status that the board shows. Why it cannot any more, the listening side says.
func (r *round) publish(ctx context.Context) {
	for {
		status, changed := r.config.Board.read()
		if status != nil {
			if err := r.say(&linkv1.AnnounceRequest{Body: &linkv1.AnnounceRequest_Status{Status: status}}); err != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// listen hears the broker until the stream breaks, and returns for how long.
func (r *round) listen(ctx context.Context) (heard time.Duration, err error) {
	defer r.config.Metrics.connected.WithLabelValues(r.config.Broker).Set(0)
	var first time.Time
	for {
		word, err := r.announce.Recv()
		switch {
		case err != nil && first.IsZero():
			return 0, fmt.Errorf("announce stream: %w", err)
		case err != nil:
			return time.Since(first), fmt.Errorf("announce stream: %w", err)
		case first.IsZero():
			first = time.Now()
		}
		r.config.Metrics.connected.WithLabelValues(r.config.Broker).Set(1)
		r.saw(func(v *View) {
			v.Connected, v.Reason = true, ""
			if status := word.GetStatus(); status != nil {
				v.Version, v.Expires = status.GetVersion(), time.Time{}
				if end := status.GetCertificateExpiresAt(); end != nil {
					v.Expires = end.AsTime()
				}
			}
		})
		switch body := word.Body.(type) {
		case *linkv1.AnnounceResponse_Status:
			r.schema = body.Status.Schema
			if csr := body.Status.Csr; len(csr) > 0 {
				r.bounded(r.queries, "enrolment", func() { r.enrol(ctx, csr) })
			}
		case *linkv1.AnnounceResponse_Query:
			r.bounded(r.queries, "query", func() { r.answer(ctx, body.Query) })
		case *linkv1.AnnounceResponse_Offer:
			schema := r.schema
			r.bounded(r.sessions, "offer", func() { r.take(ctx, body.Offer, schema) })
		}
	}
}

// bounded starts work if there is a token for it. Else it leaves it: whoever waits for it asks again, or another.
func (r *round) bounded(tokens chan struct{}, kind string, work func()) {
	select {
	case tokens <- struct{}{}:
		r.work.Go(func() {
			defer func() { <-tokens }()
			work()
		})
	default:
		r.config.Logger.Warn("too much at once, left to others", "broker", r.config.Broker, "kind", kind)
	}
}

// told is a session's stream whose end says why, where the broker has said so.
type told struct {
	grpc.BidiStreamingClient[linkv1.Frame, linkv1.Frame]
}

func (t told) Recv() (*linkv1.Frame, error) {
	f, err := t.BidiStreamingClient.Recv()
	if err != nil {
		if why := t.Trailer().Get(endedKey); len(why) == 1 {
			err = &endedError{err, why[0]}
		}
	}
	return f, err
}

// endedError is the end of a session by the broker's word.
type endedError struct {
	error
	why string
}

func (e *endedError) Unwrap() error { return e.error }

// EndedBecause is the broker's word.
func (e *endedError) EndedBecause() string { return e.why }

// take opens an offered session and serves it.
func (r *round) take(ctx context.Context, offer *linkv1.Offer, schema uint32) {
	log := r.config.Logger.With("broker", r.config.Broker, "zone", offer.ZoneId, "agent", offer.Agent, "session", hex.EncodeToString(offer.Session))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.leg.Session(metadata.AppendToOutgoingContext(ctx, sessionKey, hex.EncodeToString(offer.Session)), grpc.MaxCallRecvMsgSize(maxFrame))
	if err != nil {
		log.Warn("offered session not taken up", "error", err)
		return
	}
	live := r.config.Metrics.sessions.WithLabelValues(r.config.Broker)
	live.Inc()
	defer live.Dec()
	err = r.config.Serve(ctx, &Session{ZoneID: offer.ZoneId, Agent: offer.Agent, Broker: r.config.Broker, Schema: schema, Stream: told{stream}})
	log.Info("session ended", "cause", err)
}
