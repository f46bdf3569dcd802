package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
)

// desk is where somebody sits who uses naru: a real API with a site behind it, and a configuration folder.
type desk struct {
	*servicetest.World
	folder string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{World: servicetest.New(t), folder: t.TempDir()}
	d.NewSite(2)
	url, ca := d.Serve()
	bare(t, d.folder)
	d.write("ca.pem", string(ca))
	d.write("admin.yaml", "server: "+url+"\nca_file: ca.pem\ntoken: admin\n")
	d.write("web.yaml", "server: "+url+"\nca_file: ca.pem\ntoken: "+d.TokenOf("web")+"\nproject: web\nzone: business\n")
	t.Setenv("NARU_CONTEXT", "admin")
	return d
}

// bare takes away what this machine's user has configured.
func bare(t *testing.T, folder string) {
	for _, name := range []string{"NARU_CONFIG", "NARU_CONTEXT", "NARU_SERVER", "NARU_TOKEN", "NARU_PROJECT", "NARU_ZONE", "NARU_CA_FILE", "NO_COLOR"} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_CONFIG_HOME", folder)
}

func (d *desk) write(name, text string) {
	d.Helper()
	path := filepath.Join(d.folder, "naru", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) read(name string) []byte {
	d.Helper()
	b, err := os.ReadFile(filepath.Join(d.folder, "naru", name))
	if err != nil {
		d.Fatal(err)
	}
	return b
}

// result is what one command line came to.
type result struct {
	code     int
	out, err string
}

// naru runs one command line; words are split at blanks but within single quotes.
func (d *desk) naru(line string) result { return naru(d.Context(), line, "") }

func naru(ctx context.Context, line, in string) result {
	var args []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	var out, errOut bytes.Buffer
	code := Run(ctx, args, strings.NewReader(in), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// must runs a command line that succeeds and returns what it wrote.
func (d *desk) must(line string) string {
	d.Helper()
	r := d.naru(line)
	if r.code != 0 {
		d.Fatalf("naru %s: exit %d\n%s", line, r.code, r.err)
	}
	return r.out
}
