package fsm_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// detach takes a file away that attach has added.
func detach(id, file, by string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_DetachRequest{DetachRequest: &commandv1.DetachRequest{RequestId: id, CommentId: id + "-" + file, By: who(by)}}}
}

// TestAFileIsTakenAwayWithWhatItHeldWhileTheRequestIsWritten: it gives its room back, and who took it away has helped write.
func TestAFileIsTakenAwayWithWhatItHeldWhileTheRequestIsWritten(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.fill("many", "ann", "shop", 64<<20-100)
	p.accept(attach("r", "secret", 100))
	p.refuse(problem.TooLarge, attach("r", "plan", 1))
	p.refuse(problem.NotFound, detach("r", "plan", "ann"))
	logged := len(p.audit(0))
	p.accept(detach("r", "secret", "bob"))
	m := p.request("r")
	if len(m.GetFiles()) != 0 || m.GetComments() != 1 || len(m.GetContributorIds()) != 1 || m.GetContributorIds()[0] != "u-bob" {
		t.Errorf("%v", m)
	}
	p.view(func(tx *state.Tx) {
		was, content, err := tx.Attachment("r", "r-secret")
		if err != nil || content != nil || was.GetDroppedBy() != "bob" || was.GetDroppedAt() == nil || was.GetSize() != 100 || len(was.GetSha256()) != 32 {
			t.Errorf("%v, %d bytes, %v", was, len(content), err)
		}
	})
	if e := p.audit(logged); len(e) != 1 || e[0].GetAction() != "request.detach" || e[0].GetTarget().GetName() != m.GetName() || !strings.HasPrefix(e[0].GetMessage(), "file secret, 100 bytes, SHA-256 09ecb6ebc8bcefc7") {
		t.Errorf("%v", e)
	}
	p.refuse(problem.NotFound, detach("r", "secret", "ann")) // it is gone
	again := attach("r", "secret", 99)
	again.GetCommentRequest().GetComment().Id = "c-again"
	p.accept(again) // under the name that is free, in the room that is free
	p.accept(p.submission("r", "review"))
	frozen := &apiv1.Request{}
	if err := proto.Unmarshal(p.request("r").GetFrozen(), frozen); err != nil || len(frozen.GetFiles()) != 1 || frozen.GetFiles()[0].GetSize() != 99 {
		t.Errorf("%v, %v", frozen.GetFiles(), err)
	}
	p.refuse(problem.Forbidden, p.vote("r", "bob", "review", apiv1.Decision_APPROVE, nil))
	p.accept(p.vote("r", "cho", "review", apiv1.Decision_APPROVE, nil))
}

func TestAFileIsAttachedAndTakenAwayOnlyWhileItsRequestIsWritten(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.accept(attach("r", "plan", 10))
	p.accept(p.submission("r", "review"))
	frozen := p.request("r").GetFrozen()
	p.refuse(problem.WrongState, detach("r", "plan", "ann"))
	p.accept(p.vote("r", "bob", "review", apiv1.Decision_RETURN, nil))
	p.accept(disableUser("ann"))
	p.refuse(problem.Forbidden, detach("r", "plan", "ann"))
	p.accept(enableUser("ann"))
	p.accept(detach("r", "plan", "ann"))
	if m := p.request("r"); string(m.GetFrozen()) != string(frozen) {
		t.Error("what was decided on became something else")
	}
	p.accept(p.submission("r", "review"))
	if m := p.request("r"); string(m.GetFrozen()) == string(frozen) {
		t.Error("people decide on a file that is gone")
	}
}

func TestNoTwoFilesOfARequestHaveOneName(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.accept(attach("r", "plan", 10))
	again := attach("r", "plan", 11)
	again.GetCommentRequest().GetComment().Id = "c-again"
	if got := p.refuse(problem.NameTaken, again); !strings.Contains(got.GetNext(), "naru request detach "+p.request("r").GetName()) || got.GetErrors()[0].GetField() != "file" {
		t.Error(got)
	}
	p.accept(attach("r", "Plan", 11))
}

// TestADraftIsDeletedForSomebodyWhoIsAwayOnlyWhileTheyAre: what that rests on is looked at again.
func TestADraftIsDeletedForSomebodyWhoIsAwayOnlyWhileTheyAre(t *testing.T) {
	p := staffed(t)
	p.draft("r", nil)
	p.accept(attach("r", "plan", 10))
	p.accept(disableUser("ann"))
	remove := &commandv1.Command{Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: "r", Reason: "ann, who asked for it, is disabled", Reads: p.asRead("ann")}}}
	p.accept(enableUser("ann"))
	p.refuse(problem.Conflict, remove)
	p.accept(disableUser("ann"))
	remove.GetDeleteRequest().Reads = p.asRead("ann")
	logged := len(p.audit(0))
	p.accept(remove)
	if e := p.audit(logged); len(e) != 1 || e[0].GetAction() != "request.delete" || e[0].GetMessage() != "ann, who asked for it, is disabled" {
		t.Errorf("%v", e)
	}
	p.view(func(tx *state.Tx) {
		if of, _, err := tx.FileBytes("u-ann", "p-shop", ""); err != nil || of != 0 {
			t.Errorf("%d bytes, %v", of, err)
		}
	})
}
