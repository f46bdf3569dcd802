package fsm_test

import (
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func beginBackup(id string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_BeginBackup{BeginBackup: &commandv1.Backup{Id: id}}}
}

func confirmBackup(id string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_ConfirmBackup{ConfirmBackup: &commandv1.Backup{Id: id}}}
}

// covered returns what zones are told of a journal: where it stands, and how far they need not keep it.
func (p *plane) covered(origin, stream string) (sequence, covered uint64) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		points, err := tx.JournalPoints("z-business")
		if err != nil {
			p.Fatal(err)
		}
		for _, point := range points {
			if point.GetOrigin() == origin && point.GetStream() == stream {
				sequence, covered = point.GetSequence(), point.GetCovered()
			}
		}
		again, err := tx.JournalCovered(state.Journal{ZoneID: "z-business", Origin: origin, Stream: stream})
		if err != nil || again != covered {
			p.Errorf("covered is %d, and %d, %v", covered, again, err)
		}
	})
	return sequence, covered
}

func TestP24AConfirmedBackupCoversWhatWasReceivedBeforeItBegan(t *testing.T) {
	p := furnished(t)
	p.accept(journal("i", "zone", happened(1, "e1"), happened(2, "e2")))
	p.accept(beginBackup("b1"))
	p.accept(journal("i", "zone", happened(3, "e3")))
	p.accept(journal("i", "c-kvm", happened(1, "f1")))
	if sequence, covered := p.covered("i", "zone"); sequence != 3 || covered != 0 {
		t.Errorf("before it is confirmed: %d of %d", covered, sequence)
	}
	p.accept(confirmBackup("b1"))
	if sequence, covered := p.covered("i", "zone"); sequence != 3 || covered != 2 {
		t.Errorf("of what came before it began and after: %d of %d", covered, sequence)
	}
	if _, covered := p.covered("i", "c-kvm"); covered != 0 {
		t.Errorf("of a journal that began later: %d", covered)
	}
	if p.events()["federation.backup"] != 1 {
		t.Errorf("events %v", p.events())
	}
	p.accept(journal("i", "zone", happened(4, "e4")))
	if sequence, covered := p.covered("i", "zone"); sequence != 4 || covered != 2 {
		t.Errorf("an entry more: %d of %d", covered, sequence)
	}
}

func TestOnlyTheNewestBackupIsConfirmedAndOnce(t *testing.T) {
	p := furnished(t)
	p.refuse(problem.Conflict, confirmBackup("none"))
	p.refuse(problem.Invalid, beginBackup(""))
	p.accept(journal("i", "zone", happened(1, "e1")))
	p.accept(beginBackup("b1"))
	p.accept(journal("i", "zone", happened(2, "e2")))
	p.accept(beginBackup("b2"))
	p.refuse(problem.Conflict, confirmBackup("b1"))
	p.accept(confirmBackup("b2"))
	p.refuse(problem.Conflict, confirmBackup("b2"))
	if _, covered := p.covered("i", "zone"); covered != 2 {
		t.Errorf("covered up to %d", covered)
	}
}
