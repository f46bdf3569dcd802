// Package uplink is a zone's end of the link to the control plane. Of the zone's agents one owns it, by election; the others
// pass their edges' calls to that one. Losing the link changes nothing in the zone.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/federation/wire"
	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Dialer opens the stream of one session through a broker.
type Dialer interface {
	Connect(ctx context.Context) (link.Stream, error)
}

// Config is what an uplink is made of. Every field but Registerer must be set.
type Config struct {
	Store  *etcdstore.Store
	Dialer Dialer
	Link   *pki.Holder
	// Samples are relayed while this agent owns the link.
	Samples *link.Samples
	Version string
	// Housekeeping is what the owner of the link does besides, a few times a minute: it records the zone's agents, and
	// moves etcd's membership along.
	Housekeeping func(ctx context.Context, own *etcdstore.Ownership) error
	Log          *slog.Logger
	Metrics      *link.Metrics
	Registerer   prometheus.Registerer
}

// Uplink is this agent's part in the zone's link.
type Uplink struct {
	Config
	state  State
	barred *prometheus.GaugeVec // by standing
}

// New returns an uplink that owns nothing yet.
func New(c Config) *Uplink {
	u := &Uplink{Config: c, barred: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "naru_uplink_barred",
		Help: "1 while the control plane lets this agent open no session, by why: revoked, quarantined.",
	}, []string{"why"})}
	for _, s := range []standing{revoked, quarantined} {
		u.barred.WithLabelValues(string(s)).Set(0)
	}
	if c.Registerer != nil {
		c.Registerer.MustRegister(u.barred)
	}
	u.state.turn(StandingBy, nil)
	return u
}

const (
	// housekeepEvery is how often the owner keeps house.
	housekeepEvery = 3 * time.Second
)

// Run stands for election, and while this agent owns the link keeps a session, until ctx ends.
func (u *Uplink) Run(ctx context.Context) error {
	for {
		own, err := u.Store.Campaign(ctx, etcdstore.UplinkName)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("stand for the uplink: %w", err)
		}
		u.Log.Info("this agent owns the link")
		u.state.turn(Connecting, nil)
		err = u.own(ctx, own)
		u.state.turn(StandingBy, nil)
		if ctx.Err() != nil {
			resign, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			return errors.Join(ctx.Err(), own.Resign(resign))
		}
		u.Log.Warn("this agent no longer owns the link", "cause", err)
	}
}

// own keeps sessions until the ownership is lost.
func (u *Uplink) own(ctx context.Context, own *etcdstore.Ownership) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-own.Lost():
			cancel(etcdstore.ErrFenced)
		case <-ctx.Done():
		}
	}()
	u.state.own.Store(own)
	defer u.state.own.Store(nil)
	go u.housekeep(ctx, own)
	return u.keep(ctx, func(ctx context.Context) error {
		err := u.session(ctx, own)
		if errors.Is(err, link.ErrIncarnationLost) {
			err = errors.Join(err, u.Store.Renew(ctx, "the control plane has seen more than the store holds"))
		}
		return err
	})
}

// session opens one session and carries it to its end. It ends when another incarnation of the store begins.
func (u *Uplink) session(ctx context.Context, own *etcdstore.Ownership) error {
	incarnation, replaced := u.Store.Incarnation()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-replaced:
			cancel()
		case <-ctx.Done():
		}
	}()
	checker, err := wire.NewChecker(wire.AtEnd)
	if err != nil {
		return err
	}
	sink := u.Store.DesiredSink(own)
	stop := func() bool { return false }
	defer func() { stop() }()
	end, err := link.NewZoneEnd(link.ZoneConfig{
		Common: link.Common{
			Identity: link.IdentityOf(u.Link), Verify: verifyServer(u.Link), Checker: checker, Version: u.Version,
			Metrics: u.Metrics, Log: u.Log,
		},
		Skipped: func(o *linkv1.Object, reason string) {
			u.Log.Error("a broker does not let an object through", "revision", o.GetRevision(), "reason", reason)
		},
		Classes: link.Classes{
			StateSource: u.Store.ObservedSource(own), StateSink: sink,
			JournalSource: u.Store.JournalSource(own), JournalSink: u.Store.OrderSink(own),
		},
		Numbers: func(ctx context.Context) (link.Numbers, error) {
			c, err := u.Store.Cursor(ctx)
			return link.Numbers{
				Incarnation: incarnation.GetId(), Revision: u.Store.Revision(),
				Epoch: c.GetPoint().GetEpoch(), EpochID: c.GetEpochId(),
			}, err
		},
		Opened: func(ctx context.Context, o *link.Opened) error {
			if err := sink.BeginEpoch(ctx, o.Welcome.GetEpoch(), o.Welcome.GetEpochId()); err != nil {
				return err
			}
			stop = u.lasting()
			if u.state.barred.Load() == nil {
				u.state.turn(Connected, nil)
			}
			u.Log.Info("session with the control plane", "server", o.Peer.Name, "epoch", o.Welcome.GetEpoch(), "schema", o.Schema)
			return nil
		},
		Samples: u.Samples,
	})
	if err != nil {
		return err
	}
	u.state.set(end)
	defer u.state.set(nil)
	return end.Run(ctx, func(ctx context.Context) (link.Path, error) {
		stream, err := u.Dialer.Connect(ctx)
		return link.Path{Stream: stream}, err
	})
}

// housekeep keeps house while the link is owned.
func (u *Uplink) housekeep(ctx context.Context, own *etcdstore.Ownership) {
	t := time.NewTicker(housekeepEvery)
	defer t.Stop()
	for {
		if err := u.Housekeeping(ctx, own); err != nil && ctx.Err() == nil {
			u.Log.Warn("keep house", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// verifyServer judges the chain of the control plane's end.
func verifyServer(h *pki.Holder) link.Verify {
	return func(chain [][]byte) (link.Peer, error) {
		p, err := pki.Verify(chain, h.Root(), time.Now(), pki.RoleServer)
		if err != nil {
			return link.Peer{}, err
		}
		return link.Peer{Name: p.ID.String(), Key: p.Key}, nil
	}
}
