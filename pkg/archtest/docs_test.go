package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository's folder.
var root = filepath.Join("..", "..")

// repository returns the repository's files, as paths from its root.
func repository(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		switch name = filepath.ToSlash(name); {
		case d.IsDir() && slices.Contains([]string{".git", "bin", ".naru-dev", "proto/third_party"}, name):
			return filepath.SkipDir
		case !d.IsDir():
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// documents returns the text of every document, by its path.
func documents(t *testing.T, files []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range files {
		if (strings.HasPrefix(f, "docs/") || !strings.Contains(f, "/")) && strings.HasSuffix(f, ".md") {
			out[f] = read(t, f)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d documents were found", len(out))
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	code   = regexp.MustCompile("`([^`\n]+)`")
	link   = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)\s]*)?\)`)
	inRepo = regexp.MustCompile(`^(controlplane|zoneagent|federation|proto|pkg|deploy|docs)/[\w./-]*$`)
	// placeholder stands for a name of the reader's: NOUN.go.
	placeholder = regexp.MustCompile(`[A-Z]{4}`)
	goFile      = regexp.MustCompile(`^[\w/-]+\.go$`)
)

func TestEveryPathInTheDocumentsIsThere(t *testing.T) {
	files := repository(t)
	found := 0
	for name, text := range documents(t, files) {
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			switch p := m[1]; {
			case placeholder.MatchString(p):
			case inRepo.MatchString(p) && !strings.HasPrefix(p, "proto/third_party"):
				found++
				if p = strings.TrimSuffix(p, "/"); !slices.ContainsFunc(files, func(f string) bool { return f == p || strings.HasPrefix(f, p+"/") }) {
					t.Errorf("%s names %s, which is not there", name, p)
				}
			case goFile.MatchString(p): // by its end
				found++
				if !slices.ContainsFunc(files, func(f string) bool { return f == p || strings.HasSuffix(f, "/"+p) }) {
					t.Errorf("%s names %s, and no file ends so", name, p)
				}
			}
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			found++
			if _, err := os.Stat(filepath.Join(root, path.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	}
	if found < 100 {
		t.Fatalf("only %d paths were found in the documents", found)
	}
}

// The life of a VM is told with the names of functions; each must be one.
func TestEveryFunctionInTheLifeOfAVMIsDeclared(t *testing.T) {
	declared := map[string]bool{}
	for _, f := range repository(t) {
		if !strings.HasSuffix(f, ".go") || strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, f), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				declared[n.Name.Name] = true
			case *ast.TypeSpec:
				declared[n.Name.Name] = true
			case *ast.BasicLit: // events have names, too
				declared[strings.Trim(n.Value, `"`)] = true
			case *ast.Field:
				for _, name := range n.Names {
					declared[name.Name] = true
				}
			}
			return true
		})
	}
	function := regexp.MustCompile(`^(?:[a-zA-Z]\w*\.)?([a-zA-Z]\w*)$`)
	mixed := regexp.MustCompile(`[a-z].*[A-Z]|[A-Z].*[a-z]|\.`)
	found := 0
	for _, m := range code.FindAllStringSubmatch(read(t, "docs/life-of-a-vm.md"), -1) {
		name := function.FindStringSubmatch(m[1])
		if name == nil || !mixed.MatchString(m[1]) || strings.HasSuffix(m[1], ".go") || strings.HasSuffix(m[1], ".proto") {
			continue
		}
		if found++; !declared[name[1]] && !declared[m[1]] {
			t.Errorf("docs/life-of-a-vm.md names %s, and nothing is called so", m[1])
		}
	}
	if found < 50 {
		t.Fatalf("only %d functions were found", found)
	}
}

func TestEveryDependencyHasItsReason(t *testing.T) {
	page := read(t, "docs/dependencies.md")
	require := regexp.MustCompile(`(?m)^\t(?:require )?(\S+) v\S+$`)
	tool := regexp.MustCompile(`(?m)^\t(\S+/\S+)$`)
	debian := regexp.MustCompile(`(?m)^  ([a-z0-9-]+):/`)
	real := map[string]bool{"@bufbuild/buf": true}
	for _, m := range require.FindAllStringSubmatch(read(t, "go.mod"), -1) {
		real[m[1]] = true
	}
	for _, m := range tool.FindAllStringSubmatch(read(t, "deploy/tools/go.mod"), -1) {
		real[m[1]] = true
	}
	for _, m := range debian.FindAllStringSubmatch(read(t, "deploy/setup.sh"), -1) {
		real[m[1]] = true
	}
	for _, m := range require.FindAllStringSubmatch(read(t, "deploy/tools/go.mod")+read(t, "deploy/tools/dex/go.mod"), -1) {
		real[m[1]] = true
	}
	for name := range real {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/dependencies.md does not say why there is %s", name)
		}
	}
	rows := regexp.MustCompile("(?m)^\\| (`[^|]*`)[^|]* \\|")
	for _, row := range rows.FindAllStringSubmatch(page, -1) {
		for _, m := range code.FindAllStringSubmatch(row[1], -1) {
			if !real[m[1]] {
				t.Errorf("docs/dependencies.md gives a reason for %s, which is no direct dependency", m[1])
			}
		}
	}
}

// metricName is naru_<part>_<thing>[_<unit>].
var metricName = regexp.MustCompile(`^naru_[a-z]+(_[a-z0-9]+)+$`)

// opts are the kinds of metrics, by the type of their options.
var opts = []string{"CounterOpts", "GaugeOpts", "HistogramOpts", "SummaryOpts"}

// metrics returns what each metric in the source is, by name: the options' type, empty where that is not seen.
func metrics(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range repository(t) {
		if !strings.HasSuffix(f, ".go") || strings.HasSuffix(f, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, f), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		makers := map[string][2]string{} // functions of the file that make a metric of a beginning and their first argument
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if f, ok := n.Rhs[0].(*ast.FuncLit); ok {
					if kind, prefix, ok := madeIn(f.Body); ok {
						makers[n.Lhs[0].(*ast.Ident).Name] = [2]string{kind, prefix}
					}
				}
			case *ast.CallExpr:
				maker, ok := n.Fun.(*ast.Ident)
				if ok && makers[maker.Name][0] != "" && len(n.Args) > 0 {
					out[makers[maker.Name][1]+literal(n.Args[0])] = makers[maker.Name][0]
				}
			case *ast.CompositeLit:
				if kind, name := options(n); literal(name) != "" {
					out[literal(name)] = kind
				}
			case *ast.BasicLit:
				if name := literal(n); metricName.MatchString(name) && out[name] == "" {
					out[name] = ""
				}
			}
			return true
		})
	}
	return out
}

// options returns the kind of metric whose options a literal is, and the expression of its name; nil where it is none.
func options(c *ast.CompositeLit) (kind string, name ast.Expr) {
	s, ok := c.Type.(*ast.SelectorExpr)
	if !ok || !slices.Contains(opts, s.Sel.Name) {
		return "", nil
	}
	for _, e := range c.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok && kv.Key.(*ast.Ident).Name == "Name" {
			return s.Sel.Name, kv.Value
		}
	}
	return "", nil
}

// madeIn finds a metric whose name is a literal and something behind it.
func madeIn(body ast.Node) (kind, prefix string, ok bool) {
	ast.Inspect(body, func(n ast.Node) bool {
		if c, is := n.(*ast.CompositeLit); is {
			if k, name := options(c); name != nil {
				if sum, is := name.(*ast.BinaryExpr); is {
					kind, prefix, ok = k, literal(sum.X), true
				}
			}
		}
		return true
	})
	return kind, prefix, ok
}

// literal returns the text of a string literal; empty for anything else.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		return strings.Trim(l.Value, `"`)
	}
	return ""
}

func TestMetricsAreNamedByConvention(t *testing.T) {
	all := metrics(t)
	if len(all) < 30 {
		t.Fatalf("only %d metrics were found", len(all))
	}
	for name, kind := range all {
		switch {
		case !metricName.MatchString(name):
			t.Errorf("%s is not naru_<part>_<thing>_<unit>", name)
		case kind == "CounterOpts" && !strings.HasSuffix(name, "_total"):
			t.Errorf("%s is a counter and does not end in _total", name)
		case (kind == "GaugeOpts" || kind == "HistogramOpts") && strings.HasSuffix(name, "_total"):
			t.Errorf("%s ends in _total and is no counter", name)
		case regexp.MustCompile(`_(ms|millis|milliseconds|kb|mb|mib|gib|percent)(_|$)`).MatchString(name):
			t.Errorf("%s is not in seconds, bytes or a ratio", name)
		}
	}
}

func TestEveryMetricInTheDocumentsIsThere(t *testing.T) {
	all := metrics(t)
	token := regexp.MustCompile("`(naru_[a-z0-9_]+)")
	found := 0
	for name, text := range documents(t, repository(t)) {
		for _, m := range token.FindAllStringSubmatch(text, -1) {
			if strings.HasSuffix(m[1], "_") { // of all with that beginning
				continue
			}
			found++
			if _, ok := all[m[1]]; !ok {
				t.Errorf("%s names the metric %s, which is not there", name, m[1])
			}
		}
	}
	if found < 10 {
		t.Fatalf("only %d metrics were found in the documents", found)
	}
}
