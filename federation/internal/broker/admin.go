package broker

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health is what /healthz says.
type health struct {
	Enrolled bool `json:"enrolled"`
	Servers  int  `json:"servers"`
	Sessions int  `json:"sessions"`
}

// serveAdmin serves /healthz and /metrics on the control network's side until ctx ends.
func (b *Broker) serveAdmin(ctx context.Context, l net.Listener, gatherer prometheus.Gatherer) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(b.health())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return context.Cause(ctx)
}

func (b *Broker) health() health {
	here, _ := b.servers.all()
	return health{Enrolled: b.Enrolled(), Servers: len(here), Sessions: b.sessions.len()}
}
