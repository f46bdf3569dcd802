// Package gateway serves the API as REST: JSON and server-sent events over HTTP, in front of any gRPC connection. The
// control plane puts it before its own services, a zone's edge before the link.
//
// What it promises is one noun worked through in the project's API page: protobuf field names, problems as RFC 9457,
// 202 and Location for what begins an operation, ETag and If-Match, Idempotency-Key, and strictness: unknown fields,
// unknown query parameters, a parameter given twice, and bytes behind the body are refused, never ignored.
//
// Nothing it sends is compressed, so that the length of an answer tells nothing about a secret in it.
package gateway

import (
	"context"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Options are what a gateway may be given; the zero value serves.
type Options struct {
	// Translate puts problems into the reader's language; nil leaves them as they are.
	Translate Translate
}

// gateway is the handler and what its parts share.
type gateway struct {
	routes    *routes
	json      *jsonMarshaler
	conn      grpc.ClientConnInterface
	translate Translate
	mux       *runtime.ServeMux
	origin    *http.CrossOriginProtection
}

// New returns a handler for every path of the API, and for GET /openapi.json. Calls go to conn with the caller's
// Authorization, Idempotency-Key, If-Match, Last-Event-Id, Accept-Language and X-Naru-Consistency as metadata, and with
// the context of the request, in which whoever stands before the gateway may have put more.
func New(conn grpc.ClientConnInterface, o Options) (http.Handler, error) {
	table, err := readRoutes()
	if err != nil {
		return nil, err
	}
	g := &gateway{
		routes: table,
		json: &jsonMarshaler{encoder: &Encoder{}, strict: runtime.JSONPb{
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: false},
		}},
		conn:      conn,
		translate: o.Translate,
		origin:    http.NewCrossOriginProtection(),
	}
	g.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, g.json),
		runtime.WithErrorHandler(g.refuseCall),
		runtime.WithRoutingErrorHandler(g.refuseRoute),
		runtime.WithIncomingHeaderMatcher(noHeader),
		runtime.WithOutgoingHeaderMatcher(noHeader),
		runtime.WithOutgoingTrailerMatcher(noHeader),
		runtime.WithMetadata(callMetadata),
		runtime.WithForwardResponseOption(g.answerHeaders),
		runtime.WithMiddlewares(g.check),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllCharacters),
	)
	if err := g.register(); err != nil {
		return nil, err
	}
	return http.HandlerFunc(g.serve), nil
}

// register binds every service of the API, then the streams, which are served by our own handler: what is bound later
// goes before what is bound earlier.
func (g *gateway) register() error {
	ctx := context.Background() // The generated code does not use it with a client that is there already.
	for _, err := range []error{
		apiv1.RegisterAccessTokenServiceHandlerClient(ctx, g.mux, apiv1.NewAccessTokenServiceClient(g.conn)),
		apiv1.RegisterAdministratorServiceHandlerClient(ctx, g.mux, apiv1.NewAdministratorServiceClient(g.conn)),
		apiv1.RegisterAuditServiceHandlerClient(ctx, g.mux, apiv1.NewAuditServiceClient(g.conn)),
		apiv1.RegisterBrokerServiceHandlerClient(ctx, g.mux, apiv1.NewBrokerServiceClient(g.conn)),
		apiv1.RegisterClusterServiceHandlerClient(ctx, g.mux, apiv1.NewClusterServiceClient(g.conn)),
		apiv1.RegisterEventServiceHandlerClient(ctx, g.mux, apiv1.NewEventServiceClient(g.conn)),
		apiv1.RegisterOfferingServiceHandlerClient(ctx, g.mux, apiv1.NewOfferingServiceClient(g.conn)),
		apiv1.RegisterCalendarServiceHandlerClient(ctx, g.mux, apiv1.NewCalendarServiceClient(g.conn)),
		apiv1.RegisterQuotaServiceHandlerClient(ctx, g.mux, apiv1.NewQuotaServiceClient(g.conn)),
		apiv1.RegisterLeaseServiceHandlerClient(ctx, g.mux, apiv1.NewLeaseServiceClient(g.conn)),
		apiv1.RegisterNotificationServiceHandlerClient(ctx, g.mux, apiv1.NewNotificationServiceClient(g.conn)),
		apiv1.RegisterNotificationChannelServiceHandlerClient(ctx, g.mux, apiv1.NewNotificationChannelServiceClient(g.conn)),
		apiv1.RegisterIdentityProviderServiceHandlerClient(ctx, g.mux, apiv1.NewIdentityProviderServiceClient(g.conn)),
		apiv1.RegisterDeliveryServiceHandlerClient(ctx, g.mux, apiv1.NewDeliveryServiceClient(g.conn)),
		apiv1.RegisterApprovalPolicyServiceHandlerClient(ctx, g.mux, apiv1.NewApprovalPolicyServiceClient(g.conn)),
		apiv1.RegisterFlavorServiceHandlerClient(ctx, g.mux, apiv1.NewFlavorServiceClient(g.conn)),
		apiv1.RegisterHostServiceHandlerClient(ctx, g.mux, apiv1.NewHostServiceClient(g.conn)),
		apiv1.RegisterImageServiceHandlerClient(ctx, g.mux, apiv1.NewImageServiceClient(g.conn)),
		apiv1.RegisterOperationServiceHandlerClient(ctx, g.mux, apiv1.NewOperationServiceClient(g.conn)),
		apiv1.RegisterProjectServiceHandlerClient(ctx, g.mux, apiv1.NewProjectServiceClient(g.conn)),
		apiv1.RegisterRoleBindingServiceHandlerClient(ctx, g.mux, apiv1.NewRoleBindingServiceClient(g.conn)),
		apiv1.RegisterRequestServiceHandlerClient(ctx, g.mux, apiv1.NewRequestServiceClient(g.conn)),
		apiv1.RegisterDelegationServiceHandlerClient(ctx, g.mux, apiv1.NewDelegationServiceClient(g.conn)),
		apiv1.RegisterRoleServiceHandlerClient(ctx, g.mux, apiv1.NewRoleServiceClient(g.conn)),
		apiv1.RegisterServerServiceHandlerClient(ctx, g.mux, apiv1.NewServerServiceClient(g.conn)),
		apiv1.RegisterVMServiceHandlerClient(ctx, g.mux, apiv1.NewVMServiceClient(g.conn)),
		apiv1.RegisterSnapshotServiceHandlerClient(ctx, g.mux, apiv1.NewSnapshotServiceClient(g.conn)),
		apiv1.RegisterGroupServiceHandlerClient(ctx, g.mux, apiv1.NewGroupServiceClient(g.conn)),
		apiv1.RegisterOrganizationServiceHandlerClient(ctx, g.mux, apiv1.NewOrganizationServiceClient(g.conn)),
		apiv1.RegisterSessionServiceHandlerClient(ctx, g.mux, apiv1.NewSessionServiceClient(g.conn)),
		apiv1.RegisterUserServiceHandlerClient(ctx, g.mux, apiv1.NewUserServiceClient(g.conn)),
		apiv1.RegisterZoneServiceHandlerClient(ctx, g.mux, apiv1.NewZoneServiceClient(g.conn)),
		g.mux.HandlePath(http.MethodGet, "/openapi.json", serveOpenAPI),
	} {
		if err != nil {
			return err
		}
	}
	for _, r := range g.routes.all {
		if !r.stream {
			continue
		}
		if err := g.mux.HandlePath(r.verb, r.path, g.stream(r)); err != nil {
			return fmt.Errorf("route %s %s: %w", r.verb, r.path, err)
		}
	}
	return nil
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("X-Content-Type-Options", "nosniff")
	trace := traceID(r.Header.Get(traceHeader))
	h.Set(traceHeader, trace)
	r.Header.Set(traceHeader, trace) // from here on it is a call's
	if err := g.origin.Check(r); err != nil {
		g.refuse(w, r, problem.New(problem.Forbidden, "a page of another site may not change anything here",
			"Call the API from its own site, or from a program."))
		return
	}
	g.mux.ServeHTTP(w, r)
}
