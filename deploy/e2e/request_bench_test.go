package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// BenchmarkS12 has a program ask for VMs, many at once, and a person approve each as soon as it is submitted, under a quota, until each
// VM is on a host. A commit is a transaction of the server's state, into which the entries of the log that are there together go.
//
// Then as much again, beside requests that wait for a decision: what one costs must not grow with them.
func BenchmarkS12(b *testing.B) {
	s := fleetOf(b, 1_000)
	d := s.bureau(b)
	var alone, beside asked
	for b.Loop() {
		alone = d.askMany(b, "first")
		d.pend(b)
		beside = d.askMany(b, "second")
	}
	alone.report(b, "")
	beside.report(b, "pending-")
	law := func(what string, is, most float64) {
		b.Logf("%s: %.2f, at most %.2f", what, is, most)
		if is > most {
			b.Errorf("%s: %.2f is more than %.2f", what, is, most)
		}
	}
	law("commits a request", alone.commits, 3)
	law(fmt.Sprintf("commits a request beside %d that wait", pending), beside.commits, 3)
	law(fmt.Sprintf("CPU a request beside %d that wait, × that of the first", pending), beside.cpu/alone.cpu, 2)
}

const (
	manyRequests = 1000
	pending      = 900 // fewer than are taken of one requester
	clerks       = 64  // who work at once
)

// asked is what it took: requests a second until their VMs were placed, commits and CPU in µs a request.
type asked struct{ rate, commits, cpu float64 }

func (a asked) report(b *testing.B, prefix string) {
	b.ReportMetric(a.rate, prefix+"placed/s")
	b.ReportMetric(a.commits, prefix+"commits/request")
	b.ReportMetric(a.cpu, prefix+"cpu-µs/request")
}

// bureau is a program that asks in the control network, and a person who decides at the internet zone's edge.
type bureau struct {
	*standing
	program, approver *client.Client
}

func (s *standing) bureau(b *testing.B) *bureau {
	b.Helper()
	ctx := b.Context()
	check := func(_ any, err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	a := s.admin
	check(a.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: &apiv1.User{Name: "ci", Kind: apiv1.User_SERVICE}}))
	for user, role := range map[string]string{"ci": "user", "lee": "approver"} {
		check(a.RoleBindings.CreateRoleBinding(ctx, &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
			Role: role, User: user, Scope: apiv1.RoleBinding_PROJECT, Place: "web"}}))
	}
	check(a.ApprovalPolicies.CreateApprovalPolicy(ctx, &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: &apiv1.ApprovalPolicy{
		Name: "one-step", Title: &apiv1.Text{Ko: "한 단계 승인", En: "One step"}, Enabled: true, Stages: []*apiv1.StageTemplate{{
			Name: "approval", Title: &apiv1.Text{Ko: "승인", En: "Approval"}, Sequence: 1, Rule: apiv1.StageTemplate_ANY,
			Eligible: &apiv1.Eligibility{Roles: []string{"approver"}, At: apiv1.Eligibility_PROJECT}}}}}))
	check(a.Offerings.CreateOffering(ctx, &apiv1.CreateOfferingRequest{Offering: &apiv1.Offering{
		Name: "plain", Title: &apiv1.Text{Ko: "기본 서버", En: "Plain server"}, Category: "plain", Image: "tiny", Currency: "KRW", MonthlyPrice: "1000",
		Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1", MonthlyPrice: "1000"}}, ApprovalPolicy: "one-step"}}))
	check(a.Offerings.PublishOffering(ctx, &apiv1.PublishOfferingRequest{Offering: "plain"}))
	limit := uint32(1_000_000)
	check(a.Quotas.CreateQuota(ctx, &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Limit: &apiv1.Amounts{Vms: &limit, Cores: &limit}}}))
	check(a.Quotas.CreateQuota(ctx, &apiv1.CreateQuotaRequest{Quota: &apiv1.Quota{Project: "web", Zone: "business", Limit: &apiv1.Amounts{Vms: &limit}}}))
	token, err := a.AccessTokens.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
		Name: "ci", User: "ci", Project: "web", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}})
	check(token, err)

	control, err := client.LoadConfig(s.path("cli", "control.yaml"))
	check(control, err)
	d := &bureau{standing: s}
	d.program, err = client.New(&client.Config{Server: control.Server, CAFile: control.CAFile, Token: token.GetSecret()})
	check(d.program, err)
	b.Cleanup(func() { d.program.Close() })
	b.Setenv("XDG_STATE_HOME", s.path("cli", "lee")) // where the session lies that she began
	lee, err := client.LoadConfig(s.path("cli", "lee.yaml"))
	check(lee, err)
	session, err := client.LoadSession(lee.Server)
	check(session, err)
	lee.Token = session.Token()
	d.approver, err = client.New(lee)
	check(d.approver, err)
	b.Cleanup(func() { d.approver.Close() })
	return d
}

func (d *bureau) submit(ctx context.Context, name string) (*apiv1.Request, error) {
	r, err := d.program.Requests.CreateRequest(ctx, &apiv1.CreateRequestRequest{Submit: true, Request: &apiv1.Request{
		Title: name, Reason: "measured", Project: "web", Zone: "business", Specification: &apiv1.RequestSpecification{
			What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "plain", Cluster: "fleet", Quantity: 1, NamePattern: name}}}}})
	return r.GetRequest(), err
}

// askMany asks for VMs and approves them, and waits until they are placed.
func (d *bureau) askMany(b *testing.B, prefix string) (a asked) {
	b.Helper()
	placed := watchPlaced(b, d.admin, manyRequests)
	cpu, commits := cpuOf(b, d.standing), d.commits(b)
	began := time.Now()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(clerks)
	for i := range manyRequests {
		g.Go(func() error {
			m, err := d.submit(ctx, fmt.Sprintf("s12-%s-%04d", prefix, i))
			if err != nil {
				return err
			}
			_, err = d.approver.Requests.DecideRequest(ctx, &apiv1.DecideRequestRequest{
				Request: m.GetId(), Verdict: apiv1.Decision_APPROVE, Comment: "measured", SeenHash: m.GetFrozenHash()})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := placed(); err != nil {
		b.Fatal(err)
	}
	a.rate = manyRequests / time.Since(began).Seconds()
	a.commits = (d.commits(b) - commits) / manyRequests
	a.cpu = float64((cpuOf(b, d.standing) - cpu).Microseconds()) / manyRequests
	return a
}

// pend submits requests that nobody decides on.
func (d *bureau) pend(b *testing.B) {
	b.Helper()
	b.StopTimer()
	defer b.StartTimer()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(clerks)
	for i := range pending {
		g.Go(func() error {
			_, err := d.submit(ctx, fmt.Sprintf("s12-waits-%04d", i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	d.until(b, "room is kept for all that wait", func(ctx context.Context) (bool, error) {
		r, err := d.admin.Requests.ListRequests(ctx, &apiv1.ListRequestsRequest{Filter: "approval=submitted AND fulfilment!=reserved", PageSize: 1})
		return err == nil && len(r.GetRequests()) == 0, err
	})
}

var batches = regexp.MustCompile(`(?m)^naru_raft_apply_batch_entries_count (\S+)$`)

// commits returns how many transactions of its state the server has committed for its log.
func (d *bureau) commits(b *testing.B) float64 {
	b.Helper()
	c, err := client.LoadConfig(d.path("cli", "control.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(c.CertificateFile, c.KeyFile)
	if err != nil {
		b.Fatal(err)
	}
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address) // *.localhost, which not every resolver knows
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	r, err := (&http.Client{Transport: transport}).Get(c.Server + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	found := batches.FindSubmatch(text)
	if found == nil {
		b.Fatalf("the server does not count its commits:\n%.300s", text)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
