package broker

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/pki"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// enrolment gets the broker its certificate, the first and every next one, from whichever server is there. It asks by
// putting a request into BrokerStatus; the holder, whose renewals it serves, keeps the time.
type enrolment struct {
	servers *servers
	trust   string // pin of the root
	version string
	log     *slog.Logger

	mu      sync.Mutex
	csr     []byte        // while one is wanted
	chains  chan [][]byte // where it is delivered
	expires time.Time     // of the certificate that there is; zero: there is none
}

// certificatePatience is how long one asking waits for a certificate once a server is there.
const certificatePatience = 30 * time.Second

// newEnrolment begins with the chain that the broker has, if any.
func newEnrolment(s *servers, trust, version string, chain [][]byte, log *slog.Logger) *enrolment {
	return &enrolment{servers: s, trust: trust, version: version, expires: endOf(chain), log: log}
}

// endOf is until when a chain's leaf is good; zero where there is none.
func endOf(chain [][]byte) time.Time {
	if len(chain) == 0 {
		return time.Time{}
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return time.Time{}
	}
	return leaf.NotAfter
}

// status is what a server that comes is told first.
func (e *enrolment) status() *linkv1.BrokerStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	status := &linkv1.BrokerStatus{Schema: schema, Version: e.version, Csr: e.csr}
	if !e.expires.IsZero() {
		status.CertificateExpiresAt = timestamppb.New(e.expires)
	}
	return status
}

// renew is the holder's: it waits for a server, asks, and returns a chain that is a broker's under the pinned root.
func (e *enrolment) renew(ctx context.Context, csr []byte) ([][]byte, error) {
	chains := make(chan [][]byte, 1)
	e.want(csr, chains)
	defer e.want(nil, nil)
	if err := e.ask(ctx); err != nil {
		return nil, err
	}
	timer := time.NewTimer(certificatePatience)
	defer timer.Stop()
	for {
		select {
		case chain := <-chains:
			if err := e.check(chain); err != nil {
				e.log.Warn("a server gave a certificate that is not for this broker", "error", err)
				continue
			}
			e.have(chain)
			return chain, nil
		case <-timer.C:
			return nil, fmt.Errorf("no server gave a certificate within %s: is a broker with this fingerprint known to the control plane (naru broker create)?", certificatePatience)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ask tells the servers that are here; those that come later read it in their first word. It returns once there is one.
func (e *enrolment) ask(ctx context.Context) error {
	arrived, told := e.tell()
	if told > 0 {
		return nil
	}
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tell says to the servers that are here how the broker stands. arrived is closed when another one comes.
func (e *enrolment) tell() (arrived <-chan struct{}, told int) {
	here, arrived := e.servers.all()
	for _, s := range here {
		s.tell(&linkv1.AnnounceResponse{Body: &linkv1.AnnounceResponse_Status{Status: e.status()}})
	}
	return arrived, len(here)
}

// have notes the new certificate, and tells the servers until when it is good.
func (e *enrolment) have(chain [][]byte) {
	e.mu.Lock()
	e.csr, e.chains, e.expires = nil, nil, endOf(chain)
	e.mu.Unlock()
	e.tell()
}

func (e *enrolment) want(csr []byte, chains chan [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.csr, e.chains = bytes.Clone(csr), chains
}

// deliver takes a server's answer; when none is wanted any more, it is dropped.
func (e *enrolment) deliver(chain [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case e.chains <- chain:
	default:
	}
}

// check holds a chain to the pinned root and the broker's role. Its time is not judged here: see pki.Holder.Set.
func (e *enrolment) check(chain [][]byte) error {
	root, err := pki.RootByPin(chain, e.trust)
	if err != nil {
		return err
	}
	_, err = pki.Verify(chain, root, time.Now(), pki.RoleBroker)
	if errors.Is(err, pki.ErrExpired) || errors.Is(err, pki.ErrNotYetValid) {
		return nil
	}
	return err
}
