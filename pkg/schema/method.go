package schema

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Method returns what the descriptors say of a method: /naru.api.v1.VMService/CreateVM; nil where there is none.
func Method(name string) protoreflect.MethodDescriptor {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ".")))
	if err != nil {
		return nil
	}
	m, _ := d.(protoreflect.MethodDescriptor)
	return m
}

// Names reports whether a text names a method of the API, or a service's: VMService/ListVMs, VMService/*.
func Names(text string) bool {
	service, method, _ := strings.Cut(text, "/")
	if method != "*" {
		return Method("/naru.api.v1."+text) != nil
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("naru.api.v1." + service))
	_, is := d.(protoreflect.ServiceDescriptor)
	return err == nil && is
}

// Shows reports whether a zone's edge lets a method be called, by the methods of the zone's policy: VMService/ListVMs, VMService/*. None of
// them lets all be.
func Shows(methods []string, method string) bool {
	short := method[strings.LastIndexByte(method, '.')+1:]
	service, _, _ := strings.Cut(short, "/")
	return len(methods) == 0 || slices.Contains(methods, short) || slices.Contains(methods, service+"/*")
}
