// Package frontdoor serves gRPC and HTTP on one TLS listener: the API of the control plane, and that of a zone's edge.
package frontdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// closeTime is how long calls under way may go on when the door closes.
const closeTime = 3 * time.Second

// Door is what stands behind the listener. Certificate, GRPC, Web and Log must be set.
type Door struct {
	// Certificate gives the server's certificate; it is asked for at each handshake, so that a renewed one is used at once.
	Certificate func() (*tls.Certificate, error)
	// GRPC was made with Options.
	GRPC *grpc.Server
	Web  http.Handler
	// Closing is called when the door begins to close, before calls under way are waited for. It may be nil.
	Closing func()
	Log     *slog.Logger
	// Limits of connections; the zero value is DefaultLimits.
	Limits Limits
	// Registerer of the door's figures; nil: they are registered nowhere.
	Registerer prometheus.Registerer
}

// Options are those that a gRPC server behind a door needs, and bounds that suit one that strangers reach. maxMessage
// bounds a request, in bytes.
func Options(maxMessage int) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.TransportCredentials(handshaken{})),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1024),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: 15 * time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// Run serves on l until ctx ends, and closes l. When it returns, no call is under way.
func (d *Door) Run(ctx context.Context, l net.Listener) error {
	if d.Limits == (Limits{}) {
		d.Limits = DefaultLimits()
	}
	split := newSplit(l, d.Certificate, d.Log, newGuests(d.Limits, newMetrics(d.Registerer)))
	web := &http.Server{
		Handler:           http.HandlerFunc(d.serveHTTP),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(d.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1024, SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 3)
	go func() { ended <- split.run(ctx) }()
	go func() { ended <- d.GRPC.Serve(split.grpc) }()
	go func() { ended <- web.Serve(split.web) }()

	var err error
	left := 3
	select {
	case <-ctx.Done():
	case err = <-ended:
		left--
	}
	cancel(err)
	d.close(web)
	for range left {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// close lets calls under way end for a while.
func (d *Door) close(web *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if d.Closing != nil {
		d.Closing()
	}
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		d.GRPC.GracefulStop()
	}()
	if web.Shutdown(ctx) != nil {
		_ = web.Close() // what is still open is cut
	}
	select {
	case <-graceful:
	case <-ctx.Done():
		d.GRPC.Stop()
		<-graceful
	}
}

// serveHTTP serves what did not come as gRPC from the start: the web, and gRPC of a client that also offered HTTP/1.1.
func (d *Door) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		d.GRPC.ServeHTTP(w, r)
		return
	}
	patient(w, r)
	d.Web.ServeHTTP(w, r)
}
