// Package archtest holds the direction of imports, as rules that say why. Its test fails with the reason of the rule that is
// broken, so that whoever breaks one learns what it protects.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the module's path.
const Module = "github.com/naru-project/naru"

// Package is one package and what its code, tests left out, imports directly.
type Package struct {
	Path    string
	Imports []string
}

// Rule says what the packages it is about may import. Patterns are paths below the module, or whole paths of other modules;
// "x/..." is x and everything below it.
type Rule struct {
	// Of are the packages that the rule is about; But are exceptions among them.
	Of, But []string
	// Not may not be imported. With Only, nothing but that and the standard library may be.
	Not, Only []string
	Reason    string
}

// Rules are those of this repository.
func Rules() []Rule {
	return []Rule{
		{
			Of: []string{"pkg/..."}, Not: []string{"controlplane/...", "zoneagent/...", "federation/...", "deploy/..."},
			Reason: "pkg is what all three trees stand on; a package that knows one of them belongs into it",
		},
		{
			Of: []string{"federation/..."}, Not: []string{"controlplane/...", "zoneagent/...", "deploy/..."},
			Reason: "both ends of the link and the broker between them share this code; it knows neither end",
		},
		{
			Of: []string{"controlplane/..."}, Not: []string{"zoneagent/...", "deploy/..."},
			Reason: "the control plane and a zone are built, upgraded and attacked separately; they meet in proto and federation only",
		},
		{
			Of: []string{"zoneagent/..."}, Not: []string{"controlplane/...", "deploy/..."},
			Reason: "the control plane and a zone are built, upgraded and attacked separately; they meet in proto and federation only",
		},
		{
			Of: []string{"pkg/placement"}, Only: []string{"proto/gen/naru/api/v1", "google.golang.org/protobuf/..."},
			Reason: "placement is pure: the same picture gives the same host in the control plane, in the zone, and in a test",
		},
		{
			Of: []string{"pkg/audit"}, Only: []string{"proto/gen/naru/api/v1", "google.golang.org/protobuf/...", "golang.org/x/mod/sumdb/..."},
			Reason: "an export is verified without a server, years later: by its bytes and by nothing else",
		},
		{
			Of: []string{"controlplane/internal/metering"}, Only: []string{"proto/gen/naru/api/v1", "proto/gen/naru/command/v1", "proto/gen/naru/link/v1", "google.golang.org/protobuf/..."},
			Reason: "what a chain of links comes to is a function of what it says: the state machine rests on it, and a bill years later",
		},
		{
			Of:     []string{"controlplane/internal/calendar", "controlplane/internal/catalog", "controlplane/internal/approval"},
			Only:   []string{"proto/gen/naru/api/v1", "pkg/problem", "pkg/grade", "controlplane/internal/calendar", "controlplane/internal/request", "google.golang.org/protobuf/...", "golang.org/x/text/...", "cel.dev/cel-go/...", "github.com/santhosh-tekuri/jsonschema/v6", "go.yaml.in/yaml/v3"},
			Reason: "what is judged of an offering, a policy or a calendar is a function of what it says: it is tested without a state, and says the same on every server",
		},
		{
			Of: []string{"..."}, But: []string{"controlplane/internal/approval", "controlplane/internal/catalog"}, Not: []string{"cel.dev/...", "github.com/santhosh-tekuri/jsonschema/..."},
			Reason: "expressions and forms that people write are interpreted in one place, with bounds, and by the proposer only",
		},
		{
			Of:  []string{"controlplane/internal/state", "controlplane/internal/fsm"},
			Not: []string{"github.com/hashicorp/...", "google.golang.org/grpc/...", "net/http", "math/rand", "math/rand/v2", "buf.build/go/protovalidate", "cel.dev/...", "github.com/cedar-policy/...", "regexp", "controlplane/internal/replica/...", "controlplane/internal/service/...", "controlplane/internal/api/..."},
			But: nil, Reason: "the state machine is a deterministic function of its log: what it imports here it could come to depend on",
		},
		{
			Of: []string{"..."}, But: []string{"controlplane/internal/replica/..."}, Not: []string{"github.com/hashicorp/raft/...", "github.com/hashicorp/raft-wal/..."},
			Reason: "replica alone knows Raft, so that the rest can be read, tested and moved without it",
		},
		{
			Of: []string{"..."}, But: []string{"zoneagent/internal/etcdstore/..."}, Not: []string{"go.etcd.io/etcd/..."},
			Reason: "etcdstore alone knows etcd: fencing, incarnations and sequences are kept in one place or nowhere",
		},
		{
			Of: []string{"..."}, But: []string{"zoneagent/internal/members"}, Not: []string{"github.com/hashicorp/memberlist/..."},
			Reason: "members alone knows memberlist, whose word is a hint and never the truth",
		},
		{
			Of: []string{"controlplane/internal/api"}, Not: []string{"controlplane/internal/state", "controlplane/internal/fsm", "controlplane/internal/replica/..."},
			Reason: "the front door knows services, not what they keep",
		},
		{
			Of: []string{"controlplane/internal/cli", "controlplane/cmd/naru"}, Not: []string{"controlplane/internal/state", "controlplane/internal/fsm", "controlplane/internal/service", "controlplane/internal/api", "controlplane/internal/replica/...", "controlplane"},
			Reason: "the command line is a client like any other; it sees the API only",
		},
		{
			Of: []string{"controlplane/internal/controller/..."}, Not: []string{"controlplane/internal/controller/..."},
			Reason: "controllers do not know one another: they meet in the state",
		},
		{
			Of: []string{"..."}, But: []string{"controlplane/internal/rights"}, Not: []string{"github.com/cedar-policy/..."},
			Reason: "rights alone asks the policy engine: there is one decision, and it is made in one place",
		},
		{
			Of: []string{"zoneagent/internal/hypervisor/libvirt/..."}, Not: []string{"zoneagent/internal/hypervisor/sim/..."},
			Reason: "a driver knows no other driver",
		},
		{
			Of: []string{"zoneagent/internal/hypervisor/sim/..."}, Not: []string{"zoneagent/internal/hypervisor/libvirt/...", "github.com/digitalocean/go-libvirt/..."},
			Reason: "a driver knows no other driver",
		},
		{
			Of: []string{"..."}, But: []string{"zoneagent/internal/hypervisor/libvirt/..."}, Not: []string{"github.com/digitalocean/go-libvirt/...", "libvirt.org/go/libvirtxml"},
			Reason: "only its driver speaks to a hypervisor",
		},
		{
			Of: []string{"federation/internal/broker"}, Not: []string{"federation/dial", "federation/hub", "federation/link"},
			Reason: "a broker stands between the ends and is neither of them: it dials nobody and opens no session of its own",
		},
	}
}

// Broken returns a sentence for each import that breaks a rule, in order.
func Broken(rules []Rule, packages []Package) []string {
	var out []string
	for _, p := range packages {
		path := below(p.Path)
		for _, r := range rules {
			if !matches(r.Of, path) || matches(r.But, path) {
				continue
			}
			for _, i := range p.Imports {
				name := below(i)
				if matches(r.Not, name) || (r.Only != nil && !standard(i) && !matches(r.Only, name)) {
					out = append(out, fmt.Sprintf("%s may not import %s: %s", path, name, r.Reason))
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// below returns a path of this module without the module's, any other as it is.
func below(path string) string {
	if path == Module {
		return "."
	}
	return strings.TrimPrefix(path, Module+"/")
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func matches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, tree := strings.CutSuffix(p, "...")
		if !tree {
			return p == path
		}
		return strings.HasPrefix(path, prefix) || path == strings.TrimSuffix(prefix, "/")
	})
}
