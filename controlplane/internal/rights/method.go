package rights

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// What stands in place of a permission.
const (
	// Public is what anybody may call, known or not.
	Public = "public"
	// Self is what whoever is known may call, on what is their own.
	Self = "self"
)

// Method is what the API says of one of its methods.
type Method struct {
	// Name is /naru.api.v1.VMService/CreateVM.
	Name string
	// Permission is what a role has to have: vm.create; or Public, or Self; empty is nobody's.
	Permission string
	// Own says that whoever is known may call it without the permission, on what is their own.
	Own bool
	// Sensitive reads are recorded before they are answered; of Personal ones those that ask for the same once a minute.
	Sensitive, Personal bool
	Edge                apiv1.Edge
}

// Reads reports whether the method changes nothing, by the permission that it takes, or because it only tries.
func (m Method) Reads() bool {
	_, name, _ := strings.Cut(m.Short(), "/")
	return strings.HasSuffix(m.Permission, ".read") || strings.HasPrefix(name, "Preview") || strings.HasPrefix(name, "Test")
}

// Short is Name as people write it: VMService/CreateVM.
func (m Method) Short() string { return strings.TrimPrefix(m.Name, prefix) }

const prefix = "/naru.api.v1."

// methods are all methods of the API, read once from its descriptors.
var methods = sync.OnceValue(func() map[string]Method {
	out := map[string]Method{}
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := methodOf(s.Methods().Get(j))
				out[m.Name] = m
			}
		}
		return true
	})
	return out
})

func methodOf(d protoreflect.MethodDescriptor) Method {
	permission, _ := proto.GetExtension(d.Options(), apiv1.E_Permission).(string)
	own, _ := proto.GetExtension(d.Options(), apiv1.E_Own).(bool)
	sensitive, _ := proto.GetExtension(d.Options(), apiv1.E_Sensitive).(bool)
	personal, _ := proto.GetExtension(d.Options(), apiv1.E_Personal).(bool)
	edge, _ := proto.GetExtension(d.Options(), apiv1.E_Edge).(apiv1.Edge)
	return Method{
		Name: "/" + string(d.Parent().FullName()) + "/" + string(d.Name()), Permission: permission, Own: own,
		Sensitive: sensitive || personal, Personal: personal, Edge: edge,
	}
}

// MethodOf returns what the API says of a method; one that it does not have is nobody's. The name may be a person's:
// VMService/CreateVM.
func MethodOf(name string) (Method, bool) {
	if m, ok := methods()[name]; ok {
		return m, true
	}
	m, ok := methods()[prefix+strings.TrimPrefix(name, "/")]
	return m, ok
}

// Methods returns the names of all methods, in order.
func Methods() []string { return slices.Sorted(maps.Keys(methods())) }

// permissions are all permissions that a role can have, in order.
var permissions = sync.OnceValue(func() []string {
	seen := map[string]bool{}
	for _, m := range methods() {
		if m.Permission != "" && m.Permission != Public && m.Permission != Self {
			seen[m.Permission] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
})

// Permissions returns all permissions that a role can have, in order.
func Permissions() []string { return permissions() }

// common are permissions to read what belongs to nobody: who has one anywhere may read all of it, as far as it lies in no
// place that the binding leaves out.
var common = map[string]bool{
	"zone.read": true, "cluster.read": true, "flavor.read": true, "image.read": true, "offering.read": true, "calendar.read": true,
	"role.read": true,
}

// Common reports whether what a permission is for belongs to nobody.
func Common(permission string) bool { return common[permission] }

// matches reports whether a role's pattern (vm.read, vm.*, *.read, *) is one of a permission.
func matches(pattern, permission string) bool {
	if pattern == "*" || pattern == permission {
		return true
	}
	noun, verb, _ := strings.Cut(pattern, ".")
	n, v, _ := strings.Cut(permission, ".")
	return (noun == "*" || noun == n) && (verb == "*" || verb == v)
}

// Expand returns the permissions that patterns stand for, in order.
func Expand(patterns []string) []string {
	var out []string
	for _, p := range permissions() {
		if slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, p) }) {
			out = append(out, p)
		}
	}
	return out
}
