package cli

import (
	"regexp"
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// methods are the names of the API's methods, which a refusal may have.
var methods = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	protoregistry.GlobalFiles.RangeFilesByPackage(apiv1.File_naru_api_v1_vm_proto.Package(), func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				all[string(s.Methods().Get(j).Name())] = true
			}
		}
		return true
	})
	return all
})

// called is what may be a method's name, with its service before it or without.
var called = regexp.MustCompile(`(/?naru\.api\.v1\.)?(\w+Service/)?\b[A-Z][A-Za-z]+\b`)

// inWords is a sentence of the API as the reader of this command line knows things: where it has a method, the command.
func (a *app) inWords(text string) string {
	if a.command == nil || a.inMethods {
		return text
	}
	return called.ReplaceAllStringFunc(text, func(found string) string {
		if methods()[found[strings.LastIndexByte(found, '/')+1:]] {
			return a.command.CommandPath()
		}
		return found
	})
}

// otherwise are the flags that are called otherwise than their fields, by the end of a field's path.
var otherwise = map[string]string{
	"name_pattern": "name", "content": "file", "source_zone": "from", "ssh_keys": "ssh-key", "desired_start": "start",
	"snapshot.name": "snapshot", "restore.snapshot": "restore", "power.verb": "power", "access_for_time.role": "access",
}

// inField is the name of a field of the API as this command line has it: its flag, or the word for its argument.
func (a *app) inField(field string) string {
	name := field[strings.LastIndexByte(field, '.')+1:]
	if at := strings.IndexByte(name, '['); at >= 0 {
		name = name[:at]
	}
	if a.command == nil {
		return field
	}
	if strings.Contains(field, "].") { // of one of many, which a file has: which of them is said too
		if first, rest, _ := strings.Cut(field, "."); !strings.Contains(first, "[") {
			return rest
		}
		return field
	}
	_, arguments, _ := strings.Cut(a.command.Use, " ")
	takes, _, _ := strings.Cut(strings.Trim(arguments, "[]"), " ")
	noun := ""
	if p := a.command.Parent(); p != nil {
		noun = p.Name()
	}
	flag, within := strings.ReplaceAll(name, "_", "-"), strings.TrimSuffix(field, "."+name)
	within = within[strings.LastIndexByte(within, '.')+1:]
	for _, flag := range []string{otherwise[within+"."+name], otherwise[name], flag, strings.TrimSuffix(flag, "s"), strings.TrimSuffix(flag, "-seconds")} {
		if a.command.Flags().Lookup(flag) != nil {
			return "--" + flag
		}
	}
	if takes != "" && !strings.HasPrefix(takes, "-") && (name == "name" || name == "id" || name == noun) {
		return strings.TrimRight(takes, ".")
	}
	return name
}

// nextInWords is what to do next, where the API's way is not this reader's.
func (a *app) nextInWords(p *apiv1.Problem) string {
	switch code := problem.Code(p.GetCode()); {
	case code == problem.Unauthenticated && a.config != nil && a.config.Token == "" && a.config.CertificateFile == "" && a.command.Name() != "login":
		return "Log in: naru login. A program has its access token, which an administrator makes with naru token create, as token or token_file in its " +
			"configuration; an administrator's certificate goes there as certificate_file and key_file."
	case code == problem.Unsupported && strings.Contains(p.GetNext(), "openapi.json"):
		return "The server and this naru are of different versions: use a naru of the server's."
	case strings.Contains(p.GetNext(), "Idempotency-Key"): // which is the API's to give
		return "Look whether it was done, before you do it again."
	}
	return a.inWords(p.GetNext())
}
