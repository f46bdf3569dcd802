package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// route is one method of the API as HTTP sees it, read from the descriptors.
type route struct {
	verb      string // GET
	path      string // /v1/vms/{vm}:stop
	method    string // /naru.api.v1.VMService/StopVM
	input     protoreflect.MessageType
	output    protoreflect.MessageType
	body      bool                         // whether it takes a request body
	bodyField protoreflect.FieldDescriptor // the field that the body is; nil where it is the whole message
	query     map[string]bool              // the query parameters it knows
	stream    bool                         // whether it answers with server-sent events
	begins    bool                         // whether it begins an operation and so answers 202
}

// routes is the table of all routes. It is never changed after readRoutes.
type routes struct {
	all       []*route
	byPattern map[string]*route // verb and pattern, as runtime.Pattern prints it
}

// readRoutes reads every HTTP binding of the package naru.api.v1.
func readRoutes() (*routes, error) {
	t := &routes{byPattern: map[string]*route{}}
	var failed error
	protoregistry.GlobalFiles.RangeFilesByPackage(apiv1.File_naru_api_v1_vm_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				r, err := readRoute(methods.Get(j))
				if err != nil {
					failed = err
					return false
				}
				if r != nil {
					t.all = append(t.all, r)
					t.byPattern[r.verb+" "+strings.ReplaceAll(r.path, "}", "=*}")] = r
				}
			}
		}
		return true
	})
	slices.SortFunc(t.all, func(a, b *route) int { return strings.Compare(a.path+a.verb, b.path+b.verb) })
	return t, failed
}

// readRoute reads the binding of one method; nil where it has none.
func readRoute(m protoreflect.MethodDescriptor) (*route, error) {
	rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return nil, nil
	}
	r := &route{
		method: fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()),
		body:   rule.GetBody() != "",
		stream: m.IsStreamingServer(),
		query:  map[string]bool{},
	}
	switch pattern := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		r.verb, r.path = http.MethodGet, pattern.Get
	case *annotations.HttpRule_Post:
		r.verb, r.path = http.MethodPost, pattern.Post
	case *annotations.HttpRule_Put:
		r.verb, r.path = http.MethodPut, pattern.Put
	case *annotations.HttpRule_Patch:
		r.verb, r.path = http.MethodPatch, pattern.Patch
	case *annotations.HttpRule_Delete:
		r.verb, r.path = http.MethodDelete, pattern.Delete
	default:
		return nil, fmt.Errorf("method %s: the gateway knows no binding like %v", m.FullName(), rule)
	}
	var err error
	if r.input, err = protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName()); err != nil {
		return nil, fmt.Errorf("method %s: %w", m.FullName(), err)
	}
	if r.output, err = protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName()); err != nil {
		return nil, fmt.Errorf("method %s: %w", m.FullName(), err)
	}
	if rule.GetBody() != "*" {
		r.bodyField = m.Input().Fields().ByName(protoreflect.Name(rule.GetBody()))
		for i := range m.Input().Fields().Len() {
			name := string(m.Input().Fields().Get(i).Name())
			if name != rule.GetBody() && !strings.Contains(r.path, "{"+name+"}") {
				r.query[name] = true
			}
		}
	}
	if f := m.Output().Fields().ByName(protoreflect.Name(rule.GetResponseBody())); f != nil && r.verb != http.MethodGet {
		r.begins = f.Message() != nil && f.Message().FullName() == (*apiv1.Operation)(nil).ProtoReflect().Descriptor().FullName()
	}
	return r, nil
}

// verbs returns the HTTP methods that a path knows, in order; none where the path is unknown. A colon in the last segment
// always begins an action: names and ids have none.
func (t *routes) verbs(path string) []string {
	var out []string
	for _, r := range t.all {
		if matches(r.path, path) {
			out = append(out, r.verb)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// matches reports whether path is of the template's form.
func matches(template, path string) bool {
	template, wantAction := cutAction(template)
	path, action := cutAction(path)
	if action != wantAction {
		return false
	}
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool {
		return w == g || strings.HasPrefix(w, "{") && g != ""
	})
}

// cutAction splits "/v1/vms/web-1:stop" into "/v1/vms/web-1" and "stop".
func cutAction(path string) (before, action string) {
	i := strings.LastIndexByte(path, ':')
	if i < strings.LastIndexByte(path, '/') {
		return path, ""
	}
	return path[:i], path[i+1:]
}
