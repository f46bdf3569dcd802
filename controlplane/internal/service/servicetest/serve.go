package servicetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/naru-project/naru/controlplane/internal/api"
)

// Serve serves the world's API over TLS on loopback until the test ends, and returns its URL and the PEM of the CA that
// signed its certificate. A bearer token is believed as it is: `admin`, or what TokenOf returns.
func (w *World) Serve() (url string, ca []byte) { return w.ServeWith(everybody{}) }

// ServeWith is Serve with somebody else who says who calls.
func (w *World) ServeWith(who api.Authenticator) (url string, ca []byte) {
	w.Helper()
	own, ca := w.certificate()
	server, err := api.New(api.Config{
		Certificate: func() (*tls.Certificate, error) { return own, nil },
		Register:    w.Service.Register, Who: who, Current: w.Current, May: w.Service, Audit: w.Service, Gatherer: prometheus.NewRegistry(),
	})
	if err != nil {
		w.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("the server ended with %v", err)
		}
	})
	return "https://" + l.Addr().String(), ca
}

// certificate is one for 127.0.0.1 that signed itself.
func (w *World) certificate() (*tls.Certificate, []byte) {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		w.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
