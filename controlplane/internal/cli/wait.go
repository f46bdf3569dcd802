package cli

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// waiting is --wait of a verb that answers with an operation.
type waiting struct{ wait bool }

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "stay until it is done, and show each step")
}

func (w *waiting) limit() time.Duration {
	if w.wait {
		return waitLimit
	}
	return shortLimit
}

// finish shows an operation: at once, or step by step to its end.
func (a *app) finish(ctx context.Context, c *client.Client, op *apiv1.Operation, w waiting) error {
	if !w.wait || op.GetDone() {
		if err := printOne(a, op, operationColumns); err != nil {
			return err
		}
		if op.GetDone() {
			return nil
		}
		if a.output == "table" {
			fmt.Fprintf(a.err, "Under way. Follow it with: naru operation show %s\n", op.GetId())
		}
		return nil
	}
	s := newStory(a.err, op)
	done, err := c.Wait(ctx, op, s.tell)
	s.close(err == nil)
	if err != nil {
		return err
	}
	if a.output == "table" {
		return nil
	}
	return printOne(a, done, operationColumns)
}

// story tells an operation step by step: on a terminal with a bar under the steps that are done, else a line a step.
type story struct {
	w     io.Writer
	began time.Time
	told  map[string]apiv1.Operation_Step_State
	name  string
	bars  *mpb.Progress
	bar   *mpb.Bar
	now   string
}

func newStory(w io.Writer, op *apiv1.Operation) *story {
	s := &story{w: w, began: time.Now(), told: map[string]apiv1.Operation_Step_State{}, name: op.GetKind() + " " + op.GetTarget().GetName()}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		s.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))
		s.bar = s.bars.AddBar(100,
			mpb.PrependDecorators(decor.Name(s.name+"  "), decor.Any(func(decor.Statistics) string { return s.now })),
			mpb.AppendDecorators(decor.Percentage(), decor.Elapsed(decor.ET_STYLE_GO, decor.WCSyncSpace)),
			mpb.BarRemoveOnComplete())
	}
	return s
}

func (s *story) tell(op *apiv1.Operation) {
	for _, step := range op.GetSteps() {
		if s.told[step.GetName()] == step.GetState() || step.GetState() == apiv1.Operation_Step_WAITING {
			continue
		}
		s.told[step.GetName()] = step.GetState()
		s.now = step.GetName()
		if step.GetState() == apiv1.Operation_Step_RUNNING {
			continue
		}
		mark := "✓"
		if step.GetState() == apiv1.Operation_Step_FAILED {
			mark = "✗"
		}
		line := fmt.Sprintf("%s %-10s %-48s %6.1f s\n", mark, step.GetName(), step.GetMessage(), since(s.began, step))
		if s.bars != nil {
			fmt.Fprint(s.bars, line)
		} else {
			fmt.Fprint(s.w, line)
		}
	}
	if s.bar != nil {
		s.bar.SetCurrent(int64(op.GetProgress()))
	}
}

// since is when the step was reached, by the clock of this side where the other's would be before the start.
func since(began time.Time, step *apiv1.Operation_Step) float64 {
	d := step.GetAt().AsTime().Sub(began).Seconds()
	if now := time.Since(began).Seconds(); d < 0 || d > now {
		return now
	}
	return d
}

func (s *story) close(ok bool) {
	if s.bar == nil {
		return
	}
	if ok {
		s.bar.SetCurrent(100)
	} else {
		s.bar.Abort(true)
	}
	s.bars.Wait()
}

// transient reports whether asking again may help.
func transient(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Unknown, codes.Aborted, codes.Internal:
		return true
	}
	return false
}

// pause waits longer the more often it broke; false when ctx ended.
func pause(ctx context.Context, broke int) bool {
	d := min(time.Duration(broke)*200*time.Millisecond, 3*time.Second)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d/2 + rand.N(d/2+1)):
		return true
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
