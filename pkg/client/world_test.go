package client_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, dir: t.TempDir()}
	a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue signs a certificate for a name and 127.0.0.1, and leaves it and its key as NAME.pem and NAME.key.
func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".pem", "CERTIFICATE", der)
	a.write(t, name+".key", "PRIVATE KEY", secret)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// call is what a server saw of one.
type call struct {
	method, key, authorization, certificate string
}

// server is one of the API's, on loopback: it answers with what the test puts into it.
type server struct {
	apiv1.UnimplementedProjectServiceServer
	apiv1.UnimplementedOperationServiceServer

	url  string
	grpc *grpc.Server

	mu    sync.Mutex
	calls []call

	list   func(context.Context) (*apiv1.ListProjectsResponse, error)
	create func(context.Context, *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error)
	watch  func(*apiv1.WatchOperationsRequest, grpc.ServerStreamingServer[apiv1.WatchOperationsResponse]) error
	// operation answers GetOperation; without it there is none.
	operation func() (*apiv1.Operation, error)
}

// serve brings a server up and takes it down with the test.
func (a *authority) serve(t *testing.T, s *server) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "https://" + l.Addr().String()
	s.grpc = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{a.issue(t, "server")}, ClientAuth: tls.RequestClientCert,
		})),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			s.note(ctx, info.FullMethod)
			return handle(ctx, req)
		}),
	)
	apiv1.RegisterProjectServiceServer(s.grpc, s)
	apiv1.RegisterOperationServiceServer(s.grpc, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.grpc.Serve(l)
	}()
	t.Cleanup(func() {
		s.grpc.Stop()
		<-done
	})
	return s
}

func (s *server) note(ctx context.Context, method string) {
	md, _ := metadata.FromIncomingContext(ctx)
	c := call{
		method: method[strings.LastIndexByte(method, '/')+1:],
		key:    strings.Join(md.Get("idempotency-key"), ","), authorization: strings.Join(md.Get("authorization"), ","),
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			c.certificate = info.State.PeerCertificates[0].Subject.CommonName
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// seen returns the calls so far.
func (s *server) seen() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...)
}

func (s *server) ListProjects(ctx context.Context, _ *apiv1.ListProjectsRequest) (*apiv1.ListProjectsResponse, error) {
	if s.list == nil {
		return &apiv1.ListProjectsResponse{}, nil
	}
	return s.list(ctx)
}

func (s *server) CreateProject(ctx context.Context, r *apiv1.CreateProjectRequest) (*apiv1.CreateProjectResponse, error) {
	if s.create == nil {
		return &apiv1.CreateProjectResponse{}, nil
	}
	return s.create(ctx, r)
}

func (s *server) WatchOperations(r *apiv1.WatchOperationsRequest, stream grpc.ServerStreamingServer[apiv1.WatchOperationsResponse]) error {
	return s.watch(r, stream)
}

func (s *server) GetOperation(ctx context.Context, r *apiv1.GetOperationRequest) (*apiv1.GetOperationResponse, error) {
	if s.operation == nil {
		return s.UnimplementedOperationServiceServer.GetOperation(ctx, r)
	}
	op, err := s.operation()
	return &apiv1.GetOperationResponse{Operation: op}, err
}

// connect returns a client of the servers that trusts the authority.
func (a *authority) connect(t *testing.T, c client.Config, servers ...*server) *client.Client {
	t.Helper()
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.url)
	}
	c.Server, c.CAFile = strings.Join(urls, ","), filepath.Join(a.dir, "ca.pem")
	api, err := client.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return api
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
