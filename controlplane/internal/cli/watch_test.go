package cli

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestAWatchSaysOnceThatItsStreamBrokeOffHoweverLongTheServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errOut bytes.Buffer
		a := &app{out: newScreen(io.Discard), err: newScreen(&errOut), output: "table"}
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		opened := 0
		away := problem.ToStatus(problem.New(problem.Unavailable, "no server answers", ""))
		n := noun[*apiv1.Project]{columns: a.projectNoun().columns}
		n.watch = func(context.Context, *client.Client, query, string) (func() (change[*apiv1.Project], error), error) {
			opened++
			switch told := false; {
			case opened == 14:
				interrupt()
				return nil, away
			case opened%6 != 1:
				return nil, away
			default:
				return func() (change[*apiv1.Project], error) {
					if told {
						return change[*apiv1.Project]{}, away
					}
					told = true
					return change[*apiv1.Project]{Type: apiv1.WatchType_PUT, Revision: "1-1", Noun: &apiv1.Project{Id: "1", Name: "web"}}, nil
				}, nil
			}
		}
		if err := watchNouns(ctx, a, nil, n, query{}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(errOut.String(), "broke off"); opened != 14 || got != 3 {
			t.Fatalf("said %d times in %d streams, of which three broke off:\n%s", got, opened, errOut.String())
		}
	})
}
