package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryComplaintHasATestThatIsThere reads docs/complaints.md.
func TestEveryComplaintHasATestThatIsThere(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	b, err := os.ReadFile(filepath.Join(root, "docs", "complaints.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	there := map[string]bool{}
	if err := filepath.WalkDir(filepath.Join(root, "controlplane"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(source, -1) {
			there[string(m[1])] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "|---|---|---|\n")
	rows, named := 0, regexp.MustCompile("`(Test\\w+)`")
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) != 5 {
			t.Fatalf("not a row: %q", row)
		}
		tests := named.FindAllStringSubmatch(cells[3], -1)
		if rows++; len(tests) == 0 {
			t.Errorf("%s: no test", cells[2])
		}
		for _, m := range tests {
			if !there[m[1]] {
				t.Errorf("%s: there is no test %s", cells[2], m[1])
			}
		}
	}
	if rows < 13 {
		t.Errorf("%d complaints are left", rows)
	}
}
