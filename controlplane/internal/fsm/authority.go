package fsm

import (
	"slices"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// mostAuthorities bounds the keyring; a role has a new one every other year.
	mostAuthorities = 64
	roleOfLinks     = "links"
)

// addAuthority gives a role its next intermediate, if nobody else has meanwhile.
func (c *command) addAuthority(in *commandv1.AddAuthority) (*commandv1.Result, error) {
	ring, err := c.tx.Keyring()
	if err != nil {
		return nil, err
	}
	next := in.GetAuthority()
	at := newest(ring, next.GetRole())
	switch {
	case len(next.GetCertificate()) == 0 || len(next.GetSealedKey()) == 0:
		return nil, invalid("an authority has a certificate and a sealed key")
	case at <= 0:
		return nil, invalid("there is no intermediate of role " + next.GetRole() + " to follow")
	case string(ring.GetAuthorities()[at].GetCertificate()) != string(in.GetAfter()):
		return nil, problem.Newf(problem.Conflict, "Look at the keyring again.", "the role %s has another newest authority than was read", next.GetRole())
	case len(ring.GetAuthorities()) >= mostAuthorities:
		return nil, problem.New(problem.WrongState, "the keyring is full", "Look why so many authorities are made: is a clock wrong?")
	}
	ring.Authorities = slices.Insert(ring.GetAuthorities(), at+1, next)
	if err := c.tx.PutKeyring(ring); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tell(apiv1.Event_INFO, "federation.authority", whereabouts{}, nil,
		"the authority for "+next.GetRole()+" has a successor, which issues from now on")
}

// retireAuthority forgets the key of an intermediate that is not its role's newest.
func (c *command) retireAuthority(in *commandv1.RetireAuthority) (*commandv1.Result, error) {
	ring, err := c.tx.Keyring()
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(ring.GetAuthorities(), func(a *commandv1.Authority) bool {
		return string(a.GetCertificate()) == string(in.GetCertificate())
	})
	if at < 0 {
		return &commandv1.Result{}, nil // somebody was faster
	}
	old := ring.GetAuthorities()[at]
	if at == 0 || at == newest(ring, old.GetRole()) {
		return nil, problem.Newf(problem.InUse, "Give it a successor first.", "the authority for %s has none", old.GetRole())
	}
	if old.GetRole() == roleOfLinks {
		old.SealedKey = nil
	} else {
		ring.Authorities = slices.Delete(ring.GetAuthorities(), at, at+1)
	}
	if err := c.tx.PutKeyring(ring); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tell(apiv1.Event_INFO, "federation.authority", whereabouts{}, nil,
		"a former authority for "+old.GetRole()+" was retired: nothing that it issued is valid any more, and its key is forgotten")
}

// newest is the index of a role's newest authority; -1 where there is none.
func newest(ring *commandv1.Keyring, role string) int {
	at := -1
	for i, a := range ring.GetAuthorities() {
		if a.GetRole() == role {
			at = i
		}
	}
	return at
}
