package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/api"
	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// federation is a world whose API is served over TLS, with real certificates and real tokens.
type federation struct {
	*servicetest.World
	*servicetest.Site
	address string
	server  *api.Server
	root    *pki.Authority
	people  *pki.Authority
	kim     *tls.Certificate
	ready   error
	metrics *prometheus.Registry
}

func newFederation(t testing.TB, hosts int) *federation {
	t.Helper()
	f := &federation{World: servicetest.New(t), metrics: prometheus.NewRegistry()}
	f.Site = f.NewSite(hosts)
	f.root = authority(t, pki.AuthorityRoot, nil)
	f.people = authority(t, pki.AuthorityPeople, f.root)
	id, err := pki.ServerID("naru.test", "server-1")
	own := certificate(t, authority(t, pki.AuthorityServers, f.root), id, err, pki.IssueOptions{DNS: []string{"localhost"}, Now: time.Now()})
	f.server, err = api.New(api.Config{
		Certificate: func() (*tls.Certificate, error) { return &own, nil },
		Register:    f.Service.Register,
		Who:         auth.New(f.Service, func() *x509.Certificate { return f.root.Certificate }, time.Now),
		Current:     f.Current,
		May:         f.Service,
		Audit:       f.Service,
		Ready:       func(context.Context) error { return f.ready },
		Gatherer:    f.metrics,
		Registerer:  f.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	f.address = "localhost:" + port
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return f
}

func authority(t testing.TB, role string, parent *pki.Authority) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority(role, "naru.test", parent, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func certificate(t testing.TB, by *pki.Authority, id spiffeid.ID, err error, o pki.IssueOptions) tls.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := by.Issue(key.Public(), id, o)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key}
}

// admin is an administrator's certificate, kim's.
func (f *federation) admin() tls.Certificate {
	if f.kim == nil {
		kim := f.administrator("kim")
		f.kim = &kim
	}
	return *f.kim
}

// administrator records an administrator and issues a certificate.
func (f *federation) administrator(name string) tls.Certificate {
	id, err := pki.AdminID("naru.test", name)
	c := certificate(f, f.people, id, err, pki.IssueOptions{Now: time.Now()})
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Do(&commandv1.Command{Body: &commandv1.Command_CreateAdministrator{CreateAdministrator: &commandv1.CreateAdministrator{Administrator: &apiv1.Administrator{
		Id: "administrator-" + name, Name: name, Fingerprint: pki.Fingerprint(leaf.PublicKey), ExpiresAt: timestamppb.New(leaf.NotAfter),
	}}}})
	return c
}

// tls is how a client reaches the API; certificates may be none.
func (f *federation) tls(certificates ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(f.root.Certificate)
	return &tls.Config{RootCAs: roots, Certificates: certificates, MinVersion: tls.VersionTLS13}
}

// token makes an access token of a project and returns its text.
func (f *federation) token(name, project, zone string) string {
	f.Helper()
	r, err := f.Admin().AccessTokens.CreateAccessToken(context.Background(), &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
		Name: name, Project: project, Zone: zone, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}})
	if err != nil {
		f.Fatal(err)
	}
	return r.GetSecret()
}

// tokenOf makes an access token of a service.
func (f *federation) tokenOf(service *apiv1.User) string {
	f.Helper()
	r, err := f.Admin().AccessTokens.CreateAccessToken(context.Background(), &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
		Name: "of-" + service.GetName(), User: service.GetName(), ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}})
	if err != nil {
		f.Fatal(err)
	}
	return r.GetSecret()
}

// dial returns the services over gRPC.
func (f *federation) dial(c *tls.Config, options ...grpc.DialOption) *client.Services {
	f.Helper()
	conn, err := grpc.NewClient("passthrough:///"+f.address, append(options, grpc.WithTransportCredentials(credentials.NewTLS(c)))...)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close() })
	return client.NewServices(conn)
}

// bearer sends a token with each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// rest is a client of the REST API.
type rest struct {
	*federation
	http  *http.Client
	token string
}

func (f *federation) rest(c *tls.Config, token string) rest {
	t := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	f.Cleanup(t.CloseIdleConnections)
	return rest{f, &http.Client{Transport: t}, token}
}

// asAdmin is the REST API for an administrator.
func (f *federation) asAdmin() rest { return f.rest(f.tls(f.admin()), "") }

type answer struct {
	*http.Response
	body []byte
}

// call sends one request; headers come in pairs.
func (r rest) call(verb, path, body string, headers ...string) answer {
	r.Helper()
	request, err := http.NewRequest(verb, "https://"+r.address+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := r.http.Do(request)
	if err != nil {
		r.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		r.Fatal(err)
	}
	return answer{response, bytes.TrimSpace(data)}
}

// problem holds that the answer is a problem of the code that says something, what to do, and where to look.
func (a answer) problem(t testing.TB, status int, code problem.Code, says string) map[string]any {
	t.Helper()
	var p struct{ Code, Detail, Next, Type, TraceID string }
	var all map[string]any
	if a.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(a.body, &all) != nil || json.Unmarshal(a.body, &p) != nil {
		t.Fatalf("%d %s is no problem: %s", a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	if a.StatusCode != status || p.Code != string(code) || !strings.Contains(p.Detail, says) || p.Next == "" {
		t.Fatalf("got %d %s, want %d %s that says %q", a.StatusCode, a.body, status, code, says)
	}
	return all
}

// json reads a successful answer.
func (a answer) json(t testing.TB, status int, into any) {
	t.Helper()
	if a.StatusCode != status || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s: %s", a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}
