package pki

import (
	"context"
	"crypto/x509"
	"math/rand/v2"
	"time"
)

const (
	// firstRetry doubles up to lastRetry while renewals fail.
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	// longestNap bounds how long a jump of the clock goes unseen.
	longestNap = 15 * time.Minute
)

// Run keeps the certificate fresh until ctx ends, whose cause it returns. It asks renew for the first certificate at
// once where there is none, and for the next when the current one has lived about two thirds of its life, by the wall
// clock or by the time that has truly passed, whichever comes first. Where that fails it asks again, ever more slowly,
// also when the certificate has expired meanwhile. renew may block; it gets a context that ends with ctx.
func (h *Holder) Run(ctx context.Context, renew func(ctx context.Context, csr []byte) ([][]byte, error)) error {
	retry, spread := firstRetry, rand.Float64()
	for {
		wait := h.untilDue(spread)
		if wait > 0 {
			retry = firstRetry
		} else {
			err := h.renewOnce(ctx, renew)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			spread = rand.Float64()
			if wait = h.untilDue(spread); wait > 0 {
				continue
			}
			// Either it failed, or this clock is so far ahead that what is new seems old: neither may go in a circle.
			if err != nil {
				h.log.Warn("certificate not renewed", "holder", h.name, "error", err, "retry_in", retry)
			}
			// Half fixed, half random, so that many holders that fail together do not ask together.
			wait = retry/2 + rand.N(retry)/2
			retry = min(2*retry, lastRetry)
		}
		if err := nap(ctx, min(wait, longestNap)); err != nil {
			return err
		}
	}
}

// untilDue is how long the current certificate needs no renewal; spread in [0,1) moves that forward.
func (h *Holder) untilDue(spread float64) time.Duration {
	c := h.get()
	if c == nil {
		return 0
	}
	due := renewalTime(c.tls.Leaf, spread)
	return min(due.Sub(h.now()), due.Sub(c.tls.Leaf.NotBefore)-time.Since(c.since))
}

func (h *Holder) renewOnce(ctx context.Context, renew func(context.Context, []byte) ([][]byte, error)) error {
	csr, err := h.CSR()
	if err != nil {
		return err
	}
	chain, err := renew(ctx, csr)
	if err != nil {
		return err
	}
	if err := h.Set(chain); err != nil {
		return err
	}
	peer := h.Peer()
	h.log.Info("certificate renewed", "holder", h.name, "id", peer.ID.String(), "until", peer.NotAfter)
	return nil
}

// Due says that the certificate is missing, or that it has lived two thirds of its life.
func (h *Holder) Due() bool { return h.untilDue(0) <= 0 }

// renewalTime is at two thirds of a certificate's life, moved forward by up to a fifteenth of it.
func renewalTime(cert *x509.Certificate, spread float64) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotBefore.Add(life/3*2 - time.Duration(spread*float64(life/15)))
}

func nap(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
