// Package edge serves the API inside a zone: the same methods, gRPC and REST, to the zone's own users. It decides nothing
// about who may do what: a call goes over the link to the control plane with the caller's token, sealed, and is judged there.
// While the zone is cut off, what may be read locally is answered from the zone's own store, with its age, to callers whom
// the control plane has vouched for not long ago; the zone's own operators log in at its desk, which answers in its place.
package edge

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/naru-project/naru/federation/link"
	"github.com/naru-project/naru/pkg/frontdoor"
	"github.com/naru-project/naru/pkg/gateway"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	"github.com/naru-project/naru/zoneagent/internal/desk"
)

// method is what the descriptors say of one method of the API.
type method struct {
	name          string
	edge          apiv1.Edge
	public        bool // anybody may call it
	shows         bool // somebody shows with it who they are: the control plane is told from which address
	input, output protoreflect.MessageType
	stream        bool
}

// table is every method of the API, by its full name.
type table map[string]method

// readTable reads the methods of naru.api.v1 from the descriptors.
func readTable() (table, error) {
	t := table{}
	var failed error
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				in, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
				if err != nil {
					failed = err
					return false
				}
				out, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
				if err != nil {
					failed = err
					return false
				}
				name := "/" + string(s.FullName()) + "/" + string(m.Name())
				edge, _ := proto.GetExtension(m.Options(), apiv1.E_Edge).(apiv1.Edge)
				permission, _ := proto.GetExtension(m.Options(), apiv1.E_Permission).(string)
				public := permission == "public"
				shows := public || m.Input().Fields().ByName("secrets") != nil
				t[name] = method{name: name, edge: edge, public: public, shows: shows, input: in, output: out, stream: m.IsStreamingServer()}
			}
		}
		return true
	})
	return t, failed
}

// find returns a method that can be called at an edge.
func (t table) find(name string) (method, error) {
	m, ok := t[name]
	switch {
	case !ok:
		return m, problem.New(problem.Unsupported, "there is no method "+name, "GET /openapi.json lists every path.")
	case m.edge == apiv1.Edge_EDGE_UNSPECIFIED:
		return m, problem.New(problem.Forbidden, name[strings.LastIndexByte(name, '/')+1:]+" cannot be called at a zone's edge", "Call it in the control network.")
	}
	return m, nil
}

// Conn is the API as the zone's users see it: a connection that a REST gateway or a gRPC server stands before. Safe for
// concurrent use.
type Conn struct {
	central grpc.ClientConnInterface
	local   *desk.Reader
	table   table
	known   *vouched
	now     clock
	down    func() time.Time
	met     atomic.Pointer[time.Time] // when a call first met LINK_DOWN; nil while calls are answered
}

// NewConn returns a connection whose calls go over central, and while that says LINK_DOWN are read from local where they
// may be. down returns since when the link is down as far as this agent knows, and zero where it does not.
func NewConn(central grpc.ClientConnInterface, local *desk.Reader, now clock, down func() time.Time) (*Conn, error) {
	t, err := readTable()
	if err != nil {
		return nil, err
	}
	return &Conn{central: central, local: local, table: t, known: newVouched(now), now: now, down: down}, nil
}

// Invoke carries out a unary call. Errors are gRPC statuses with their problem.
func (c *Conn) Invoke(ctx context.Context, name string, args, reply any, opts ...grpc.CallOption) error {
	m, err := c.table.find(name)
	if err != nil {
		return problem.ToStatus(err)
	}
	credential, err := bearer(ctx, m)
	if err != nil {
		return problem.ToStatus(err)
	}
	// The broker would refuse what breaks a rule, with fewer words.
	if err := schema.Validate(args.(proto.Message)); err != nil {
		return problem.ToStatus(err)
	}
	if m.shows {
		ctx = metadata.AppendToOutgoingContext(ctx, link.MDClient, clientOf(ctx))
	}
	err = problem.FromStatus(c.central.Invoke(ctx, name, args, reply, opts...))
	c.heard(credential, m, err)
	if !problem.Is(err, problem.LinkDown) {
		c.met.Store(nil)
	}
	switch {
	case desk.Local(credential): // it was the zone's own desk that answered
	case err == nil && m.edge == apiv1.Edge_EDGE_LOCAL_READ:
		c.vouch(ctx, credential)
	case problem.Is(err, problem.LinkDown) && m.edge == apiv1.Edge_EDGE_LOCAL_READ:
		who, ok := c.known.get(credential)
		if !ok {
			return problem.ToStatus(err)
		}
		since := c.cutOffSince()
		if err = c.local.Read(args.(proto.Message), reply.(proto.Message), desk.Sight{Project: who.GetProject()}, since); err == nil {
			tell(opts, metadata.Pairs(gateway.ConsistencyHeader, gateway.LocalSince(since)))
		}
	}
	return problem.ToStatus(err)
}

// cutOffSince returns since when the zone is cut off: from this agent's link where it is the one that has it, else from when
// a call first met that.
func (c *Conn) cutOffSince() time.Time {
	now := c.now()
	c.met.CompareAndSwap(nil, &now)
	since := now
	if met := c.met.Load(); met != nil {
		since = *met
	}
	if down := c.down(); !down.IsZero() && down.Before(since) {
		since = down
	}
	return since
}

// tell gives a caller the header of an answer, where it asked for one.
func tell(opts []grpc.CallOption, md metadata.MD) {
	for _, o := range opts {
		if h, ok := o.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = metadata.Join(*h.HeaderAddr, md)
		}
	}
}

// heard forgets a caller whom the control plane refuses: for the credential, or for what it once vouched for.
func (c *Conn) heard(credential string, m method, err error) {
	switch {
	case problem.Is(err, problem.TokenInvalid), problem.Is(err, problem.TokenExpired), problem.Is(err, problem.Unauthenticated),
		problem.Is(err, problem.Revoked), problem.Is(err, problem.Forbidden) && m.edge == apiv1.Edge_EDGE_LOCAL_READ:
		c.known.forget(credential)
	}
}

// vouch asks the control plane who the caller is, and remembers it for when the link is down.
func (c *Conn) vouch(ctx context.Context, credential string) {
	if c.known.fresh(credential) {
		return
	}
	who := &apiv1.WhoAmIResponse{}
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", credential))
	err := problem.FromStatus(c.central.Invoke(ctx, apiv1.AccessTokenService_WhoAmI_FullMethodName, &apiv1.WhoAmIRequest{}, who))
	if err == nil {
		c.known.put(credential, who)
		return
	}
	c.heard(credential, method{edge: apiv1.Edge_EDGE_LOCAL_READ}, err)
}

// NewStream begins a watch. There is no watch while the zone is cut off.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, name string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	m, err := c.table.find(name)
	if err != nil {
		return nil, problem.ToStatus(err)
	}
	credential, err := bearer(ctx, m)
	if err != nil {
		return nil, problem.ToStatus(err)
	}
	s, err := c.central.NewStream(ctx, desc, name, opts...)
	if err = problem.FromStatus(err); err != nil {
		c.heard(credential, m, err)
		return nil, problem.ToStatus(err)
	}
	return heardStream{s, func(err error) { c.heard(credential, m, problem.FromStatus(err)) }}, nil
}

// heardStream tells how a watch ended: a refusal comes at any time, when a token ends under it.
type heardStream struct {
	grpc.ClientStream
	ended func(error)
}

func (s heardStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		s.ended(err)
	}
	return err
}

type remoteKey struct{}

// clientOf is the address from which a call came, over gRPC or HTTP.
func clientOf(ctx context.Context) string {
	if remote, ok := ctx.Value(remoteKey{}).(string); ok {
		return frontdoor.Client(remote)
	}
	if p, ok := peer.FromContext(ctx); ok {
		return frontdoor.Client(p.Addr.String())
	}
	return ""
}

// bearer returns the credential that comes with a call.
func bearer(ctx context.Context, m method) (string, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	credential := first(md.Get("authorization"))
	if credential == "" && !m.public {
		return "", problem.New(problem.Unauthenticated, "no bearer token came with the request", "Log in: naru login. Or send Authorization: Bearer with a token; an administrator makes one with: naru token create")
	}
	return credential, nil
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
