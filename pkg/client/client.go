package client

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/pki"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Services are those of the API, over one connection. Errors of their methods are gRPC statuses; problem.From turns them
// into problems.
type Services struct {
	Offerings            apiv1.OfferingServiceClient
	Calendars            apiv1.CalendarServiceClient
	Quotas               apiv1.QuotaServiceClient
	Leases               apiv1.LeaseServiceClient
	Notifications        apiv1.NotificationServiceClient
	NotificationChannels apiv1.NotificationChannelServiceClient
	IdentityProviders    apiv1.IdentityProviderServiceClient
	Deliveries           apiv1.DeliveryServiceClient
	Usage                apiv1.UsageServiceClient
	ApprovalPolicies     apiv1.ApprovalPolicyServiceClient

	Zones          apiv1.ZoneServiceClient
	Clusters       apiv1.ClusterServiceClient
	Hosts          apiv1.HostServiceClient
	Flavors        apiv1.FlavorServiceClient
	Images         apiv1.ImageServiceClient
	Projects       apiv1.ProjectServiceClient
	Brokers        apiv1.BrokerServiceClient
	VMs            apiv1.VMServiceClient
	Snapshots      apiv1.SnapshotServiceClient
	Operations     apiv1.OperationServiceClient
	Events         apiv1.EventServiceClient
	Servers        apiv1.ServerServiceClient
	AccessTokens   apiv1.AccessTokenServiceClient
	Administrators apiv1.AdministratorServiceClient
	Sessions       apiv1.SessionServiceClient
	Organizations  apiv1.OrganizationServiceClient
	Users          apiv1.UserServiceClient
	Groups         apiv1.GroupServiceClient
	Roles          apiv1.RoleServiceClient
	RoleBindings   apiv1.RoleBindingServiceClient
	Requests       apiv1.RequestServiceClient
	Delegations    apiv1.DelegationServiceClient
	Crossings      apiv1.CrossingServiceClient
	Audit          apiv1.AuditServiceClient

	pin string // of the federation's root
}

// NewServices returns the services behind a connection.
func NewServices(conn grpc.ClientConnInterface) *Services {
	return &Services{
		Offerings:            apiv1.NewOfferingServiceClient(conn),
		Calendars:            apiv1.NewCalendarServiceClient(conn),
		Quotas:               apiv1.NewQuotaServiceClient(conn),
		Leases:               apiv1.NewLeaseServiceClient(conn),
		Notifications:        apiv1.NewNotificationServiceClient(conn),
		NotificationChannels: apiv1.NewNotificationChannelServiceClient(conn),
		Deliveries:           apiv1.NewDeliveryServiceClient(conn),
		Usage:                apiv1.NewUsageServiceClient(conn),
		ApprovalPolicies:     apiv1.NewApprovalPolicyServiceClient(conn),
		IdentityProviders:    apiv1.NewIdentityProviderServiceClient(conn),

		Zones:          apiv1.NewZoneServiceClient(conn),
		Clusters:       apiv1.NewClusterServiceClient(conn),
		Hosts:          apiv1.NewHostServiceClient(conn),
		Flavors:        apiv1.NewFlavorServiceClient(conn),
		Images:         apiv1.NewImageServiceClient(conn),
		Projects:       apiv1.NewProjectServiceClient(conn),
		Brokers:        apiv1.NewBrokerServiceClient(conn),
		VMs:            apiv1.NewVMServiceClient(conn),
		Snapshots:      apiv1.NewSnapshotServiceClient(conn),
		Operations:     apiv1.NewOperationServiceClient(conn),
		Events:         apiv1.NewEventServiceClient(conn),
		Servers:        apiv1.NewServerServiceClient(conn),
		AccessTokens:   apiv1.NewAccessTokenServiceClient(conn),
		Administrators: apiv1.NewAdministratorServiceClient(conn),
		Sessions:       apiv1.NewSessionServiceClient(conn),
		Organizations:  apiv1.NewOrganizationServiceClient(conn),
		Users:          apiv1.NewUserServiceClient(conn),
		Groups:         apiv1.NewGroupServiceClient(conn),
		Roles:          apiv1.NewRoleServiceClient(conn),
		RoleBindings:   apiv1.NewRoleBindingServiceClient(conn),
		Requests:       apiv1.NewRequestServiceClient(conn),
		Delegations:    apiv1.NewDelegationServiceClient(conn),
		Crossings:      apiv1.NewCrossingServiceClient(conn),
		Audit:          apiv1.NewAuditServiceClient(conn),
	}
}

// Client has the services at whichever of the servers answers.
type Client struct {
	*Services
	conn *grpc.ClientConn
}

// New returns a client. Nothing is dialled before the first call. An option goes before the client's own.
func New(c *Config, options ...grpc.DialOption) (*Client, error) {
	servers, err := c.servers()
	if err != nil {
		return nil, err
	}
	tc, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if c.TrustPin != "" {
		if err := pki.CheckPin(c.TrustPin); err != nil {
			return nil, fmt.Errorf("trust_pin: %w", err)
		}
	}
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(tc)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithUnaryInterceptor(repeatSafely),
		grpc.WithContextDialer(dial),
		// Each call goes to the next server that can be reached; one that is back is found again soon.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	}, options...)
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	known := manual.NewBuilderWithScheme("naru")
	known.InitialState(resolver.State{Addresses: servers})
	conn, err := grpc.NewClient("naru:///"+servers[0].Addr, append(options, grpc.WithResolvers(known))...)
	if err != nil {
		return nil, err
	}
	return &Client{NewServices(conn).Trusting(c.TrustPin), conn}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

// IdempotencyKey is the metadata under which a write goes that is to be done once, however often it is sent.
const IdempotencyKey = "idempotency-key"

// tellAfter is how long nobody says that a call is repeated: most such calls are answered by then.
const tellAfter = time.Second

type repeatedKey struct{}

// TellRepeated has tell called when a call of the context is repeated and that may take long, with why; once a call.
func TellRepeated(ctx context.Context, tell func(why error)) context.Context {
	return context.WithValue(ctx, repeatedKey{}, tell)
}

// telling is what was told of one call that is repeated. The zero value is one that has not failed yet.
type telling struct {
	began time.Time
	told  bool
}

// repeated hears that the call is repeated, and why.
func (t *telling) repeated(ctx context.Context, why error) {
	if t.began.IsZero() {
		t.began = time.Now()
	}
	tell, _ := ctx.Value(repeatedKey{}).(func(error))
	if tell == nil || t.told || time.Since(t.began) < tellAfter && !problem.Is(problem.FromStatus(why), problem.LinkDown) {
		return
	}
	t.told = true
	tell(why)
}

type underKey struct{}

// under counts the writes of a context that are made under one key.
type under struct {
	key    string
	writes atomic.Uint32
}

// Under has the writes of the context made under the key, so that whoever does the same again under it does nothing twice: the first under
// the key itself, those that follow under the key with .2, .3 and so on behind it.
func Under(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, underKey{}, &under{key: key})
}

// keyOf is the idempotency key of the context's next write.
func keyOf(ctx context.Context) string {
	u, _ := ctx.Value(underKey{}).(*under)
	if u == nil {
		return uuid.NewString()
	}
	if n := u.writes.Add(1); n > 1 {
		return fmt.Sprintf("%s.%d", u.key, n)
	}
	return u.key
}

// repeatSafely gives every write an idempotency key, and repeats a call that found nobody, or whose fate is unknown,
// until the context ends: with the key nothing is done twice. Where several servers are known, another one is asked. A read
// that a cut-off zone cannot answer is not repeated: the link may be down for days, and nothing is left open.
func repeatSafely(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	write, told := isWrite(method), telling{began: time.Now()}
	if md, _ := metadata.FromOutgoingContext(ctx); write && len(md.Get(IdempotencyKey)) == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, IdempotencyKey, keyOf(ctx))
	}
	_, bounded := ctx.Deadline()
	var nobody error // why the last call found nobody
	for wait := firstPause; ; wait = min(2*wait, maxPause) {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if nobody != nil && status.Code(err) == codes.DeadlineExceeded {
			return nobody
		}
		if !bounded || status.Code(err) != codes.Unavailable {
			return err
		}
		if !write && problem.Is(problem.FromStatus(err), problem.LinkDown) {
			return err
		}
		told.repeated(ctx, err)
		if nobody = err; !pause(ctx, wait) {
			return err
		}
	}
}

// isWrite reports whether a method changes anything, by its verb.
func isWrite(method string) bool {
	verb := method[strings.LastIndexByte(method, '/')+1:]
	for _, read := range []string{"Get", "List", "Watch", "Top", "Summarize", "WhoAmI", "Explain", "Preview", "BackUp", "Export"} {
		if strings.HasPrefix(verb, read) {
			return false
		}
	}
	return true
}

// dial resolves names under .localhost to this machine itself, as RFC 6761 has it and not every resolver does.
func dial(ctx context.Context, address string) (net.Conn, error) {
	if host, port, err := net.SplitHostPort(address); err == nil && strings.HasSuffix(host, ".localhost") {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}
