package wire

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Method is one method of the public API that a zone's users may call over the link.
type Method struct {
	// Name as gRPC has it: /naru.api.v1.VMService/CreateVM.
	Name string
	Edge apiv1.Edge
	// Streams: the server answers with a stream. Reads: it changes nothing, by the permission that it takes.
	Streams, Reads bool

	input, output body
}

// body is one message type made ready to be checked.
type body struct {
	form *Form
	kind protoreflect.MessageType
}

// methods returns every method of naru.api.v1 that carries an edge option and takes one request.
func methods() (map[string]*Method, error) {
	found := map[string]*Method{}
	var failed error
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				md := service.Methods().Get(j)
				edge, _ := proto.GetExtension(md.Options(), apiv1.E_Edge).(apiv1.Edge)
				if edge == apiv1.Edge_EDGE_UNSPECIFIED || md.IsStreamingClient() {
					continue
				}
				permission, _ := proto.GetExtension(md.Options(), apiv1.E_Permission).(string)
				m := &Method{
					Name:    fmt.Sprintf("/%s/%s", service.FullName(), md.Name()),
					Edge:    edge,
					Streams: md.IsStreamingServer(),
					Reads:   strings.HasSuffix(permission, ".read"),
				}
				if m.input, failed = compileBody(md.Input()); failed != nil {
					return false
				}
				if m.output, failed = compileBody(md.Output()); failed != nil {
					return false
				}
				found[m.Name] = m
			}
		}
		return true
	})
	return found, failed
}

func compileBody(md protoreflect.MessageDescriptor) (body, error) {
	form, err := Compile(md)
	if err != nil {
		return body{}, err
	}
	kind, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err != nil {
		return body{}, fmt.Errorf("find the type of %s: %w", md.FullName(), err)
	}
	return body{form: form, kind: kind}, nil
}
