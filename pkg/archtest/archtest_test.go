package archtest

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages returns those of the module, as the go command lists them.
func packages(t *testing.T) []Package {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", Module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []Package
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, Package{p.ImportPath, p.Imports})
	}
	if len(all) < 30 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

func TestEveryImportKeepsTheRules(t *testing.T) {
	for _, b := range Broken(Rules(), packages(t)) {
		t.Error(b)
	}
}

func TestEveryRuleIsAboutPackagesThatExist(t *testing.T) {
	all := packages(t)
	for _, r := range Rules() {
		for _, of := range r.Of {
			found := false
			for _, p := range all {
				found = found || matches([]string{of}, below(p.Path))
			}
			if !found {
				t.Errorf("no package is %s; a rule about nothing protects nothing", of)
			}
		}
		if r.Reason == "" {
			t.Errorf("the rule about %v does not say why", r.Of)
		}
	}
}

func TestABrokenRuleIsFoundWithItsReason(t *testing.T) {
	rules := []Rule{
		{Of: []string{"a/..."}, But: []string{"a/but"}, Not: []string{"b", "other.example/x/..."}, Reason: "because"},
		{Of: []string{"pure"}, Only: []string{"proto"}, Reason: "pure"},
	}
	got := Broken(rules, []Package{
		{Module + "/a", []string{Module + "/b", "fmt"}},
		{Module + "/a/deep", []string{"other.example/x/y"}},
		{Module + "/a/but", []string{Module + "/b"}},
		{Module + "/ab", []string{Module + "/b"}},
		{Module + "/pure", []string{"fmt", Module + "/proto", "net.example/z"}},
	})
	want := []string{
		"a may not import b: because",
		"a/deep may not import other.example/x/y: because",
		"pure may not import net.example/z: pure",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("got %q", got)
	}
}

// A broker dials nobody: neither by the net package nor through gRPC.
func TestTheBrokerHasNoWordForDialling(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "federation", "internal", "broker", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal("the broker's files were not found", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, _ := s.X.(*ast.Ident)
			if pkg != nil && (strings.HasPrefix(s.Sel.Name, "Dial") || pkg.Name == "grpc" && s.Sel.Name == "NewClient") {
				t.Errorf("%s uses %s.%s: a broker is dialled and dials nobody", filepath.Base(file), pkg.Name, s.Sel.Name)
			}
			return true
		})
	}
}
