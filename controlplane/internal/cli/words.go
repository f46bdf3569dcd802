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

// otherwise are the flags that are called otherwise than their fields, by the end of a field's path; of several the one that was given counts.
var otherwise = map[string][]string{
	"name_pattern": {"name"}, "content": {"file"}, "source_zone": {"from"}, "ssh_keys": {"ssh-key"}, "desired_start": {"start"},
	"snapshot.name": {"snapshot"}, "restore.snapshot": {"restore"}, "power.verb": {"power"}, "access_for_time.role": {"access"},
	"to_user": {"to"}, "starts_at": {"starts"}, "ends_at": {"until", "for"}, "expires_at": {"until", "lifetime"},
	"place": {"organization", "project", "zone"},
}

// inField is the name of a field of the API as this command line has it: its flag, or the word for its argument; of what a file says, where
// it stands there.
func (a *app) inField(field string) string {
	if a.command == nil {
		return field
	}
	path := strings.Split(field, ".")
	name, _, _ := strings.Cut(path[len(path)-1], "[")
	oneOfMany := strings.Contains(field, "].") // which a file has: which of them is said too
	if !oneOfMany {
		if flag := a.flagOf(path, name); flag != "" {
			return "--" + flag
		}
		_, arguments, _ := strings.Cut(a.command.Use, " ")
		for i, word := range strings.Fields(arguments) {
			if word = strings.Trim(word, "[]."); strings.HasPrefix(word, "-") {
				break
			}
			if strings.EqualFold(word, name) || i == 0 && (name == "name" || name == "id" || a.ofNoun(name)) {
				return word
			}
		}
	}
	if !oneOfMany && a.command.Flags().Lookup("file") == nil {
		return name
	}
	if len(path) > 1 && !strings.Contains(path[0], "[") && a.ofNoun(path[0]) {
		path = path[1:]
	}
	return strings.Join(path, ".")
}

// ofNoun reports whether a field is called as the command's noun, or as what the noun is of in the API.
func (a *app) ofNoun(field string) bool {
	p := a.command.Parent()
	return p != nil && (field == strings.ReplaceAll(p.Name(), "-", "_") || p.Name() == "catalog" && field == "offering")
}

// flagOf is the flag of a field, by its path and the name at its end; empty where there is none.
func (a *app) flagOf(path []string, name string) string {
	flags, plain := a.command.Flags(), strings.ReplaceAll(name, "_", "-")
	var found string
	for _, flag := range append(otherwise[path[max(len(path)-2, 0)]+"."+name], otherwise[name]...) {
		if f := flags.Lookup(flag); f != nil && (f.Changed || found == "") {
			found = flag
		}
	}
	if found != "" {
		return found
	}
	for _, flag := range []string{plain, strings.TrimSuffix(plain, "s"), strings.TrimSuffix(plain, "-seconds")} {
		if flags.Lookup(flag) != nil {
			return flag
		}
	}
	return ""
}

// nextInWords is what to do next, where the API's way is not this reader's.
func (a *app) nextInWords(p *apiv1.Problem) string {
	switch code := problem.Code(p.GetCode()); {
	case code == problem.Unauthenticated && a.config != nil && a.config.Token == "" && a.config.CertificateFile == "" && a.command.Name() != "login":
		return "Log in: naru login. A program has its access token, which an administrator makes with naru token create, as token or token_file in its " +
			"configuration; an administrator's certificate goes there as certificate_file and key_file."
	case code == problem.Unsupported && strings.Contains(p.GetNext(), "openapi.json"):
		return "The server and this naru are of different versions: use a naru of the server's."
	case strings.Contains(p.GetNext(), "Idempotency-Key"): // which explain names
		return "Try again."
	}
	return a.inWords(p.GetNext())
}
