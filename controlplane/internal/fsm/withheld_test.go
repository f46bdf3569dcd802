package fsm_test

import (
	"strings"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func withheld(sequence uint64) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ConsumeWithheld{ConsumeWithheld: &commandv1.ConsumeWithheld{
		ZoneId: "z-business",
		Withheld: &linkv1.Withheld{
			Type: linkv1.Type_JOURNAL_BATCH, Digest: make([]byte, 32), Reason: "a rule is broken",
			Entry: &linkv1.JournalPoint{Origin: "inc-1", Stream: "c-kvm", Sequence: sequence},
		},
	}}}
}

func TestAWithheldEntryIsConsumedOnceAndRecorded(t *testing.T) {
	p := furnished(t)
	p.accept(journal("inc-1", "c-kvm", happened(1, "e1")))
	p.accept(withheld(2))
	p.accept(withheld(2)) // told again
	p.accept(journal("inc-1", "c-kvm", happened(3, "e3")))
	p.refuse(problem.Conflict, withheld(5))
	p.refuse(problem.Invalid, withheld(0))
	if got := p.received("inc-1", "c-kvm"); got != 3 {
		t.Errorf("received up to %d", got)
	}
	if got := p.rejections("inc-1", "c-kvm"); len(got) != 1 || !strings.HasPrefix(got[0], "2: withheld by a broker: a rule is broken (SHA-256 00") {
		t.Errorf("recorded: %q", got)
	}
	if n := p.events()["zone.journal-withheld"]; n != 1 {
		t.Errorf("%d events", n)
	}
}
