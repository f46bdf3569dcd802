package fsm_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// allowed is every package that Apply may import, with the reason. What is not here is not deterministic until shown.
var allowed = map[string]string{
	"crypto/sha256": "digests for the audit log", "unicode/utf8": "cuts texts between letters",
	"encoding/binary": "derives ids from the command's", "encoding/hex": "writes them", "errors": "wraps", "fmt": "sentences",
	"io": "streams of snapshots", "math": "MaxInt64 alone", "slices": "order", "strconv": "sentences", "strings": "sentences",
	"google.golang.org/protobuf/proto":                            "messages",
	"google.golang.org/protobuf/reflect/protoreflect":             "what a command is about, by its descriptor",
	"google.golang.org/protobuf/types/known/timestamppb":          "times that commands carry",
	"github.com/naru-project/naru/controlplane/internal/action":   "what the record calls a command",
	"github.com/naru-project/naru/controlplane/internal/hold":     "who could have acted as whom, by the transaction alone",
	"github.com/naru-project/naru/controlplane/internal/metering": "the rules of what is counted of a VM's use, which are pure",
	"github.com/naru-project/naru/controlplane/internal/quota":    "what quotas leave, by the transaction alone",
	"github.com/naru-project/naru/controlplane/internal/request":  "the rules of requests, which are pure",
	"github.com/naru-project/naru/controlplane/internal/state":    "the transaction",
	"github.com/naru-project/naru/controlplane/internal/tie":      "what somebody has by an organization, by the transaction alone",
	"github.com/naru-project/naru/pkg/audit":                      "the tree and the form of a zone's own log, which are pure",
	"github.com/naru-project/naru/pkg/notice":                     "whether a topic is one of those that are named",
	"github.com/naru-project/naru/pkg/problem":                    "refusals",
	"github.com/naru-project/naru/pkg/schema":                     "merging by who may write a field",
	"github.com/naru-project/naru/proto/gen/naru/api/v1":          "nouns",
	"github.com/naru-project/naru/proto/gen/naru/command/v1":      "commands",
	"github.com/naru-project/naru/proto/gen/naru/link/v1":         "what passes the link",
	"github.com/naru-project/naru/pkg/grade":                      "the order of grades",
}

// forbidden names of allowed packages, with the reason.
var forbidden = map[string]string{
	"timestamppb.Now": "reads a clock", "schema.Validate": "interprets rules, which another version may read otherwise",
	"notice.Unknown": "goes by the topics that a version knows", "notice.Sentence": "are words of a version", "notice.Mail": "are words of a version",
	"audit.NewKey": "draws lots", "audit.ReadLeaf": "interprets an entry, of which another version may know more fields",
	"schema.CheckCreate": "interprets rules", "schema.ApplyUpdate": "interprets rules", "fmt.Print": "is I/O", "fmt.Println": "is I/O",
	"fmt.Printf": "is I/O", "fmt.Fprint": "is I/O", "fmt.Fprintf": "is I/O", "fmt.Fprintln": "is I/O", "math.Sqrt": "is a float",
}

// TestApplyIsAFunctionOfItsInput walks the package's source: nothing in it may depend on anything but its input.
func TestApplyIsAFunctionOfItsInput(t *testing.T) {
	fset := token.NewFileSet()
	files := sources(t, fset)
	info := typesOf(t, fset, files)
	for _, f := range files {
		for _, spec := range f.Imports {
			if path := strings.Trim(spec.Path.Value, `"`); allowed[path] == "" {
				t.Errorf("%s imports %s, which is not on the list of what Apply may use", fset.Position(spec.Pos()), path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if why := impure(n, info); why != "" {
				t.Errorf("%s: %s", fset.Position(n.Pos()), why)
			}
			return true
		})
	}
}

// impure says why a node makes the function depend on something else; "" if it does not.
func impure(n ast.Node, info *types.Info) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a goroutine: its turn is the scheduler's choice"
	case *ast.SelectStmt:
		return "a select: its choice is random"
	case *ast.RangeStmt:
		if tv := info.TypeOf(n.X); tv != nil {
			if _, ok := tv.Underlying().(*types.Map); ok {
				return "a range over a map: its order is random"
			}
		}
	case *ast.SelectorExpr:
		if x, ok := n.X.(*ast.Ident); ok && forbidden[x.Name+"."+n.Sel.Name] != "" {
			return x.Name + "." + n.Sel.Name + " " + forbidden[x.Name+"."+n.Sel.Name]
		}
	case *ast.GenDecl:
		if n.Tok == token.VAR {
			for _, s := range n.Specs {
				if v := s.(*ast.ValueSpec); info.Defs[v.Names[0]] != nil && info.Defs[v.Names[0]].Parent() == info.Defs[v.Names[0]].Pkg().Scope() &&
					!strings.HasPrefix(v.Names[0].Name, "err") {
					return "a package variable: Apply keeps nothing between commands but its transaction"
				}
			}
		}
	case ast.Expr:
		if b, ok := info.TypeOf(n).(*types.Basic); ok && b.Info()&(types.IsFloat|types.IsComplex) != 0 {
			return "a float: its result may differ by machine"
		}
	}
	return ""
}

func TestTheTestOfPurityFindsWhatItLooksFor(t *testing.T) {
	const bad = `package bad
var kept int
func f(m map[string]int, c chan int) float64 {
	go f(nil, nil)
	for k := range m { _ = k }
	select { case <-c: default: }
	return 1.5
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "bad.go", bad, 0)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{}).Check("bad", fset, []*ast.File{f}, info); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		if why := impure(n, info); why != "" {
			found[strings.SplitN(why, ":", 2)[0]] = true
		}
		return true
	})
	for _, want := range []string{"a goroutine", "a select", "a range over a map", "a float", "a package variable"} {
		if !found[want] {
			t.Errorf("%s went unseen", want)
		}
	}
}

func sources(t *testing.T, fset *token.FileSet) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, p, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	if len(files) < 10 {
		t.Fatalf("only %d files were found", len(files))
	}
	return files
}

// typesOf checks the package's types, with the export data that `go list` has built.
func typesOf(t *testing.T, fset *token.FileSet, files []*ast.File) *types.Info {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-export", "-f", "{{.ImportPath}}={{.Export}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	exports := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		if path, file, ok := strings.Cut(line, "="); ok {
			exports[path] = file
		}
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(fset, "gc", lookup)}
	if _, err := config.Check("fsm", fset, files, info); err != nil {
		t.Fatal(err)
	}
	return info
}
