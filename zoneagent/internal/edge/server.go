package edge

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/naru-project/naru/pkg/frontdoor"
	"github.com/naru-project/naru/pkg/gateway"
)

// maxMessage bounds a request.
const maxMessage = 1 << 20

// Serve serves the API in front of c, gRPC and REST, on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, c *Conn, certificate func() (*tls.Certificate, error), log *slog.Logger, registry prometheus.Registerer) error {
	rest, err := gateway.New(c, gateway.Options{})
	if err != nil {
		return err
	}
	door := &frontdoor.Door{
		Certificate: certificate, Log: log, Registerer: registry,
		GRPC: grpc.NewServer(append(frontdoor.Options(maxMessage), grpc.UnknownServiceHandler(c.ServeUnknown))...),
		Web: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rest.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), remoteKey{}, r.RemoteAddr)))
		}),
	}
	return door.Run(ctx, l)
}
