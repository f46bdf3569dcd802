package api_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/rights"
	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// apiMethods are all methods of the API.
func apiMethods() map[string]protoreflect.MethodDescriptor {
	out := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				out["/"+string(s.FullName())+"/"+string(s.Methods().Get(j).Name())] = s.Methods().Get(j)
			}
		}
		return true
	})
	return out
}

// call calls any method and returns what it answers; of a stream, what comes up to the second bookmark.
func call(ctx context.Context, conn grpc.ClientConnInterface, name string, d protoreflect.MethodDescriptor, request proto.Message) ([]proto.Message, error) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.Output().FullName())
	if err != nil {
		return nil, err
	}
	if !d.IsStreamingServer() {
		answer := mt.New().Interface()
		err := conn.Invoke(ctx, name, request, answer)
		return []proto.Message{answer}, problem.FromStatus(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(request); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var answers []proto.Message
	for bookmarks := 0; bookmarks < 2; {
		m := mt.New().Interface()
		if err := stream.RecvMsg(m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, problem.FromStatus(err)
		}
		if c, ok := m.(interface{ GetType() apiv1.WatchType_Value }); ok && c.GetType() == apiv1.WatchType_BOOKMARK {
			bookmarks++
		}
		answers = append(answers, m)
	}
	return answers, nil
}

// tokenRule says what a project's access token may do with a method: admin (nothing), project (in its project), or anyone (what
// belongs to nobody).
func tokenRule(name string) string {
	m, _ := rights.MethodOf(name)
	operator := slices.IndexFunc(rights.BuiltIn(), func(r *apiv1.Role) bool { return r.GetName() == rights.ProjectOperator })
	switch {
	case m.Permission == rights.Public || m.Permission == rights.Self || m.Own || rights.Common(m.Permission):
		return "anyone"
	case slices.Contains(rights.Expand(rights.BuiltIn()[operator].GetPermissions()), m.Permission):
		return "project"
	}
	return "admin"
}

// TestP14OneTenantNeverSeesAnother calls every method as everybody who is no user: administrators by certificate, access tokens,
// and nobody.
func TestP14OneTenantNeverSeesAnother(t *testing.T) {
	served := servicetest.New(t).API.Dispatcher().Methods()
	for name, d := range apiMethods() {
		if !slices.Contains(served, name) {
			continue // drafted
		}
		if inSessions[name] {
			continue
		}
		t.Run(string(d.Name()), func(t *testing.T) {
			t.Parallel()
			w := servicetest.New(t)
			operation := spare(t, w, w.NewSite(1))
			if request := ofUsers[name]; request != nil {
				for _, who := range []string{w.TokenOf("db"), w.TokenOf("web"), "admin"} {
					ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", who)
					if _, err := call(ctx, w.API.Local(), name, d, proto.Clone(request)); !problem.Is(err, problem.Forbidden) {
						t.Errorf("%s: %v", who, err)
					}
				}
				if _, err := call(t.Context(), w.API.Local(), name, d, request); !problem.Is(err, problem.Unauthenticated) {
					t.Errorf("nobody: %v", err)
				}
				return
			}
			request, known := examples(w, operation)[name]
			if !known {
				t.Fatalf("%s has no request in the matrix: say what it answers to whom", name)
			}
			succeeds := request != nil
			if !succeeds {
				request = notInMatrix[name]
			}
			rule := tokenRule(name)
			do := func(who string) ([]proto.Message, error) {
				ctx := t.Context()
				if who != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", who)
				}
				return call(ctx, w.API.Local(), name, d, proto.Clone(request))
			}
			if _, err := do(""); !problem.Is(err, problem.Unauthenticated) {
				t.Errorf("nobody: %v", err)
			}
			answers, err := do(w.TokenOf("db"))
			text := strings.ReplaceAll(prototext.Format(&apiv1.Problem{Detail: errorText(err)}), "web-1", "") // what the caller itself named
			for _, m := range answers {
				text += prototext.Format(m)
			}
			switch {
			case rule == "admin" && !problem.Is(err, problem.Forbidden):
				t.Errorf("another project's token may call what is an administrator's: %v", err)
			case rule == "project" && err != nil && !problem.Is(err, problem.NotFound):
				t.Errorf("another project's token: %v", err)
			case rule == "project" && (strings.Contains(text, "web-1") || strings.Contains(text, `"web"`) && err == nil):
				t.Errorf("another project's token sees %s", text)
			case theirOwn[name]:
				if !problem.Is(err, problem.NotFound) {
					t.Errorf("a token: %v", err)
				}
			case rule == "anyone" && err != nil:
				t.Errorf("a token: %v", err)
			}
			if _, err := do(w.TokenOf("web")); rule != "admin" && err != nil && !theirOwn[name] {
				t.Errorf("the project's own token: %v", err)
			} else if rule == "admin" && !problem.Is(err, problem.Forbidden) {
				t.Errorf("the project's own token may call what is an administrator's: %v", err)
			}
			if strings.HasPrefix(string(d.Name()), "Create") && rule == "project" {
				return // the name is taken now
			}
			request = adminRequest(request)
			if _, err := do("admin"); succeeds && err != nil {
				t.Errorf("an administrator: %v", err)
			} else if problem.Is(err, problem.Forbidden) || problem.Is(err, problem.Unauthenticated) {
				t.Errorf("an administrator is refused: %v", err)
			}
		})
	}
}

// adminRequest says which project is meant, which a token need not.
func adminRequest(m proto.Message) proto.Message {
	out := proto.Clone(m)
	f := out.ProtoReflect().Descriptor().Fields().ByName("project")
	if f != nil && f.Kind() == protoreflect.StringKind && out.ProtoReflect().Get(f).String() == "" {
		out.ProtoReflect().Set(f, protoreflect.ValueOfString("web"))
	}
	for _, end := range []*timestamppb.Timestamp{ // each earlier than it is by now
		sent[*apiv1.ShortenLeaseRequest](out).GetExpiresAt(), sent[*apiv1.ShortenRoleBindingRequest](out).GetExpiresAt(), sent[*apiv1.ShortenCrossingRequest](out).GetEndsAt(),
	} {
		if end != nil {
			end.Seconds -= 60
		}
	}
	return out
}

// sent is a message as what it is; nil where it is something else.
func sent[M proto.Message](m proto.Message) (out M) {
	out, _ = m.(M)
	return out
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
