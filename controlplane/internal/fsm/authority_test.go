package fsm_test

import (
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func ca(role, name string) *commandv1.Authority {
	return &commandv1.Authority{Role: role, Certificate: []byte(name), SealedKey: []byte("sealed " + name)}
}

func addCA(a *commandv1.Authority, after string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_AddAuthority{AddAuthority: &commandv1.AddAuthority{Authority: a, After: []byte(after)}}}
}

func retireCA(name string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_RetireAuthority{RetireAuthority: &commandv1.RetireAuthority{Certificate: []byte(name)}}}
}

// ringed is a federation with a keyring of its own.
func ringed(t tb) *plane {
	p, b := empty(t), bootstrap()
	b.GetBootstrap().Keyring = &commandv1.Keyring{Authorities: []*commandv1.Authority{
		ca("root", "root"), ca("servers", "servers-1"), ca("links", "links-1"),
	}}
	p.accept(b)
	return p
}

// ring is the keyring as "certificate" or, without its key, "(certificate)".
func (p *plane) ring() (text string) {
	p.view(func(tx *state.Tx) {
		k, err := tx.Keyring()
		if err != nil {
			p.Fatal(err)
		}
		for _, a := range k.GetAuthorities() {
			if len(a.GetSealedKey()) > 0 {
				text += " " + string(a.GetCertificate())
			} else {
				text += " (" + string(a.GetCertificate()) + ")"
			}
		}
	})
	return text
}

func TestAnAuthorityGetsASuccessorOnceAndIsThenRetired(t *testing.T) {
	p := ringed(t)
	p.accept(addCA(ca("servers", "servers-2"), "servers-1"))
	p.accept(addCA(ca("links", "links-2"), "links-1"))
	p.refuse(problem.Conflict, addCA(ca("servers", "servers-3"), "servers-1"))
	if got := p.ring(); got != " root servers-1 servers-2 links-1 links-2" {
		t.Fatalf("the keyring is%s", got)
	}
	p.accept(retireCA("servers-1"))
	p.accept(retireCA("links-1"))
	p.accept(retireCA("servers-1"))
	if got := p.ring(); got != " root servers-2 (links-1) links-2" {
		t.Fatalf("the keyring is%s", got)
	}
	if n := p.events()["federation.authority"]; n != 4 {
		t.Errorf("%d events tell of it", n)
	}
}

func TestTheKeyringIsNeverLeftWithoutARootOrAnAuthorityOfARole(t *testing.T) {
	p := ringed(t)
	p.refuse(problem.InUse, retireCA("root"))
	p.refuse(problem.InUse, retireCA("links-1"))
	p.refuse(problem.Invalid, addCA(ca("root", "root-2"), "root"))
	p.refuse(problem.Invalid, addCA(ca("kings", "kings-1"), ""))
	p.refuse(problem.Invalid, addCA(&commandv1.Authority{Role: "links", Certificate: []byte("links-2")}, "links-1"))
	p.refuse(problem.Invalid, addCA(nil, "links-1"))
}

func TestTheKeyringDoesNotGrowWithoutEnd(t *testing.T) {
	p, last := ringed(t), "links-1"
	for range 61 {
		next := last + "+"
		p.accept(addCA(ca("links", next), last))
		last = next
	}
	p.refuse(problem.WrongState, addCA(ca("links", "one more"), last))
}
