package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/problem"
)

func TestAServerOfAnotherCAIsToldFromOneThatIsNotThere(t *testing.T) {
	d := newDesk(t)
	_, other := servicetest.New(t).Serve()
	d.write("other.pem", string(other))
	t.Setenv("NARU_CA_FILE", filepath.Join(d.folder, "naru", "other.pem"))
	r := d.naru("vm list --timeout 500ms")
	if r.code != problem.ExitUnavailable || !strings.Contains(r.err, "ca_file "+filepath.Join(d.folder, "naru", "other.pem")+" is not of the CA") || strings.Contains(r.err, "Is it up") {
		t.Errorf("%+v", r)
	}
}
