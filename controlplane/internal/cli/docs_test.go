package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/naru-project/naru/pkg/problem"
)

// manual reads docs/cli.md.
func manual(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func tree() *cobra.Command {
	return (&app{out: newScreen(io.Discard), err: newScreen(io.Discard), names: map[string]lister{}}).root()
}

var quoted = regexp.MustCompile("`([a-z][a-z-]*)[^`]*`")

func words(text string) []string {
	var out []string
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return out
}

func TestTheManualNamesEveryNounAndVerb(t *testing.T) {
	written := map[string][]string{}
	_, table, _ := strings.Cut(manual(t), "| noun | verbs |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		for _, noun := range words(cells[1]) {
			written[noun] = words(cells[2])
		}
	}
	real := map[string][]string{}
	for _, noun := range tree().Commands() {
		for _, verb := range noun.Commands() {
			if noun.Name() != "completion" {
				real[noun.Name()] = append(real[noun.Name()], verb.Name())
			}
		}
		slices.Sort(real[noun.Name()])
	}
	maps.DeleteFunc(real, func(_ string, verbs []string) bool { return len(verbs) == 0 })
	if len(written) == 0 {
		t.Fatal("the manual's table of nouns was not found")
	}
	for noun := range real {
		if !slices.Equal(written[noun], real[noun]) {
			t.Errorf("naru %s has %q, and docs/cli.md says %q", noun, real[noun], written[noun])
		}
	}
	for noun := range written {
		if real[noun] == nil {
			t.Errorf("docs/cli.md has %s, and naru has not", noun)
		}
	}
}

// Every command line in the documents is one that naru takes.
func TestEveryCommandInTheDocumentsIsThere(t *testing.T) {
	docs := filepath.Join("..", "..", "..", "docs")
	var files []string
	for _, pattern := range []string{filepath.Join(docs, "*.md"), filepath.Join(docs, "guides", "*", "*.md")} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal("no documents were found", pattern, err)
		}
		files = append(files, found...)
	}
	command := regexp.MustCompile("(?m)(?:^|[`(])naru ([a-z][a-z-]*(?: [^`\n#|>]*)?)")
	flag := regexp.MustCompile(`(?:^|[ \[])(--?[a-z][a-z-]*)`)
	found := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(b), -1) {
			line := m[1]
			found++
			args := strings.Fields(line)
			cmd, rest, err := tree().Find(args)
			switch {
			case err != nil || cmd == nil:
				t.Errorf("%s: naru %s: %v", filepath.Base(file), line, err)
			case cmd.HasSubCommands() && len(rest) > 0 && regexp.MustCompile(`^[a-z]+$`).MatchString(rest[0]):
				t.Errorf("%s: naru %s: %s has no verb %s", filepath.Base(file), line, cmd.Name(), rest[0])
			}
			for _, f := range flag.FindAllStringSubmatch(regexp.MustCompile(`\$\(.*\)|'[^']*'|"[^"]*"`).ReplaceAllString(line, ""), -1) {
				name := strings.TrimLeft(f[1], "-")
				if name != "help" && cmd.Flag(name) == nil && cmd.Flags().ShorthandLookup(name[:1]) == nil && cmd.InheritedFlags().ShorthandLookup(name[:1]) == nil {
					t.Errorf("%s: naru %s: %s has no %s", filepath.Base(file), line, cmd.CommandPath(), f[1])
				}
			}
		}
	}
	if found < 50 {
		t.Fatalf("only %d command lines were found; the documents have more", found)
	}
}

func TestTheManualSaysEveryExitCodeAsItIs(t *testing.T) {
	_, table, _ := strings.Cut(manual(t), "| code | | for instance |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for code, words := range map[int]string{
		0: "done", problem.ExitRefused: "refused", problem.ExitUsage: "not valid", problem.ExitNotFound: "not found",
		problem.ExitNotAllowed: "not allowed", problem.ExitConflict: "conflict", problem.ExitUnavailable: "not available", problem.ExitTimeout: "too long",
	} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \|[^|]*%s`, code, words)).MatchString(table) {
			t.Errorf("docs/cli.md does not say that %d is %q", code, words)
		}
	}
}

func TestEveryCommandSaysWhatItIsFor(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s has the short help %q", c.CommandPath(), c.Short)
		}
		for _, s := range c.Commands() {
			visit(s)
		}
	}
	visit(tree())
}
