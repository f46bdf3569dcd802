package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

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
	if w.wait && !op.GetDone() {
		return a.wait(ctx, c, op)
	}
	if a.output == "wide" || a.output == "table" {
		a.told(op)
		return nil
	}
	if a.output == "name" && op.GetId() == "" { // it was so already, and there is none
		return nil
	}
	return printOne(a, op, operationColumns)
}

// wait follows an operation and tells its steps.
func (a *app) wait(ctx context.Context, c *client.Client, op *apiv1.Operation) error {
	s := newStory(a.err, op)
	done, err := c.Wait(client.TellRepeated(ctx, func(why error) { s.say(a.repeated(ctx, why)) }), op, s.tell)
	s.close(err == nil)
	if err != nil || a.output == "table" || a.output == "wide" {
		return err
	}
	return printOne(a, done, operationColumns)
}

// told says in a line what became of a request.
func (a *app) told(op *apiv1.Operation) {
	_, verb, _ := strings.Cut(op.GetKind(), ".")
	what := strings.TrimSpace(op.GetTarget().GetKind() + " " + op.GetTarget().GetName())
	if op.GetDone() {
		said := verb + " done"
		if steps := op.GetSteps(); op.GetId() == "" && len(steps) > 0 && steps[0].GetMessage() != "" {
			said += ", " + steps[0].GetMessage() // why nothing had to be done
		}
		fmt.Fprintf(a.out, "%s: %s\n", printable(what), printable(said))
		return
	}
	fmt.Fprintf(a.out, "%s: %s under way, operation %s\n", printable(what), verb, op.GetId())
	fmt.Fprintf(a.err, "Follow it with: naru operation wait %s\n", op.GetId())
}

// story tells an operation step by step: on a terminal with a bar under the steps that are done, else a line a step.
type story struct {
	to    *screen
	began time.Time
	told  map[string]apiv1.Operation_Step_State
	bars  *mpb.Progress
	bar   *mpb.Bar
	now   string
}

func newStory(to *screen, op *apiv1.Operation) *story {
	s := &story{to: to, began: time.Now(), told: map[string]apiv1.Operation_Step_State{}}
	if to.terminal() {
		name := printable(op.GetKind() + " " + op.GetTarget().GetName() + "  ")
		s.bars = mpb.New(mpb.WithOutput(to.w), mpb.WithWidth(min(max(to.width-len(name)-30, 10), 48)))
		s.bar = s.bars.AddBar(100,
			mpb.PrependDecorators(decor.Name(name), decor.Any(func(decor.Statistics) string { return s.now })),
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
		s.say(s.line(step))
	}
	if s.bar != nil {
		s.bar.SetCurrent(int64(op.GetProgress()))
	}
}

// say writes a line above the bar, where there is one.
func (s *story) say(line string) {
	if s.bars != nil {
		fmt.Fprint(s.bars, line)
	} else {
		fmt.Fprint(s.to, line)
	}
}

// line is one step; its message gives way where the terminal is narrow.
func (s *story) line(step *apiv1.Operation_Step) string {
	mark := s.to.paint(green, "✓")
	if step.GetState() == apiv1.Operation_Step_FAILED {
		mark = s.to.paint(red, "✗")
	}
	room := 48
	message := printable(step.GetMessage())
	if s.to.terminal() {
		room = min(room, max(s.to.width-22, minimum))
		message = runewidth.Truncate(message, room, "…")
	}
	return fmt.Sprintf("%s %-10s %s %6.1f s\n", mark, printable(step.GetName()), runewidth.FillRight(message, room), since(s.began, step))
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
