package fsm_test

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func TestAWithheldEntryIsConsumedAndRecorded(t *testing.T) {
	p := furnished(t)
	withheld := func(sequence uint64) *commandv1.Command {
		return &commandv1.Command{Body: &commandv1.Command_ConsumeWithheld{ConsumeWithheld: &commandv1.ConsumeWithheld{ZoneId: "z-business", Withheld: &linkv1.Withheld{
			Type: linkv1.Type_JOURNAL_BATCH, Reason: "an unknown field", Digest: []byte{0xab, 0xcd},
			Entry: &linkv1.JournalPoint{Origin: "inc-1", Stream: "zone", Sequence: sequence}}}}}
	}
	p.accept(journal("inc-1", "zone", happened(1, "e1")))
	p.refuse(problem.Conflict, withheld(3))
	p.refuse(problem.Invalid, withheld(0))
	p.accept(withheld(2))
	p.accept(withheld(2))
	p.accept(withheld(1)) // consumed long ago
	p.accept(journal("inc-1", "zone", happened(3, "e3")))
	if got := p.rejections("inc-1", "zone"); len(got) != 1 || !strings.Contains(got[0], "2: withheld by a broker: an unknown field (SHA-256 abcd)") {
		t.Errorf("rejected %q", got)
	}
	if p.received("inc-1", "zone") != 3 || p.events()["zone.journal-withheld"] != 1 {
		t.Errorf("received up to %d, events %v", p.received("inc-1", "zone"), p.events())
	}
}
