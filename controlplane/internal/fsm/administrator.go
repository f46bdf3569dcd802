package fsm

import (
	"slices"

	"github.com/naru-project/naru/controlplane/internal/hold"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func (c *command) createAdministrator(in *commandv1.CreateAdministrator) (*commandv1.Result, error) {
	m := in.GetAdministrator()
	if err := mayCreate(c.tx.Administrators, "administrator", m, nil); err != nil {
		return nil, err
	}
	if m.GetFingerprint() == "" || m.GetExpiresAt() == nil {
		return nil, invalid("an administrator needs the fingerprint of a key, and an end")
	}
	if err := c.isPerson(m.GetUserId()); err != nil {
		return nil, err
	}
	m.CreatedBy, m.CreatedAt, m.RenewedAt, m.MakerIds = c.actor, c.now, nil, nil
	if err := c.made(m); err != nil {
		return nil, err
	}
	if err := c.tellOfAdministrator(apiv1.Event_WARNING, "administrator.created", m, "may administer the federation, by the word of "+c.actor); err != nil {
		return nil, err
	}
	return put(c.tx.Administrators, m)
}

// renewAdministrator notes which key the newest certificate is for. Those of another key are refused from now on.
func (c *command) renewAdministrator(in *commandv1.RenewAdministrator) (*commandv1.Result, error) {
	m, err := stored(c.tx.Administrators, "administrator", in.GetAdministratorId(), "")
	if err != nil {
		return nil, err
	}
	if in.GetFingerprint() == "" || in.GetExpiresAt() == nil {
		return nil, invalid("an administrator needs the fingerprint of a key, and an end")
	}
	if err := c.isPerson(in.GetUserId()); err != nil {
		return nil, err
	}
	if m.GetFingerprint() != in.GetFingerprint() {
		m.MakerIds = nil
	}
	if err := c.made(m); err != nil {
		return nil, err
	}
	if in.GetUserId() != "" {
		m.User, m.UserId = in.GetUser(), in.GetUserId()
	}
	severity, said := apiv1.Event_INFO, "has a new certificate for the same key, by the word of "+c.actor
	if m.GetFingerprint() != in.GetFingerprint() {
		severity, said = apiv1.Event_WARNING, "has a certificate for another key, by the word of "+c.actor+"; those of the old key are refused"
	}
	m.Fingerprint, m.ExpiresAt, m.RenewedAt = in.GetFingerprint(), in.GetExpiresAt(), c.now
	if err := c.tellOfAdministrator(severity, "administrator.renewed", m, said); err != nil {
		return nil, err
	}
	return put(c.tx.Administrators, m)
}

// deleteAdministrator refuses an administrator's certificates from now on. One whose certificate is good always remains.
func (c *command) deleteAdministrator(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Administrators, "administrator", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if _, err := c.endAdministrators(func(other *apiv1.Administrator) bool { return other.GetId() == m.GetId() }); err != nil {
		return nil, err
	}
	op, err := c.done("administrator.delete", reference("administrator", m), whereabouts{})
	if err != nil {
		return nil, err
	}
	return made(m, op)
}

// endAdministrators ends those that are asked for, and returns them. One whose certificate is good always remains.
func (c *command) endAdministrators(which func(*apiv1.Administrator) bool) (ended []*apiv1.Administrator, err error) {
	last, remains := "", false
	for m, err := range c.tx.Administrators.All(nil) {
		if err != nil {
			return nil, err
		}
		good := later(m.GetExpiresAt(), c.clock)
		switch {
		case !which(m):
			remains = remains || good
			continue
		case good:
			last = m.GetName()
		}
		ended = append(ended, m)
	}
	if last != "" && !remains {
		return nil, problem.Newf(problem.InUse, "Make another administrator first: naru admin create.",
			"%s is the last administrator whose certificate is good", last)
	}
	for _, m := range ended {
		if err := c.tellOfAdministrator(apiv1.Event_WARNING, administratorDeleted, m, "may no longer administer the federation, by the word of "+c.actor); err != nil {
			return nil, err
		}
		if err := c.tx.Administrators.Delete(m.GetId()); err != nil {
			return nil, err
		}
	}
	return ended, nil
}

// made notes by whose word an administrator has a certificate: whoever it is may have the key.
func (c *command) made(m *apiv1.Administrator) error {
	behind, err := hold.Behind(c.tx, c.by)
	if err != nil {
		return err
	}
	all := append(m.GetMakerIds(), behind...)
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(id string) bool { return id == m.GetId() || id == m.GetUserId() })
	m.MakerIds = all[:min(len(all), maxHolders)]
	return nil
}

// isPerson checks that somebody who is named is a person, and let in; nobody need be named.
func (c *command) isPerson(userID string) error {
	if userID == "" {
		return nil
	}
	user, err := stored(c.tx.Users, "user", userID, "")
	if err == nil && user.GetKind() != apiv1.User_PERSON {
		err = problem.Newf(problem.WrongState, "Name a person.", "user %s is a service", user.GetName())
	}
	if why := request.Away(user); err == nil && why != "" {
		err = problem.Newf(problem.WrongState, "Let them in again first, or name somebody else: naru user enable, naru user reset-password.", "user %s %s", user.GetName(), why)
	}
	return err
}

func (c *command) tellOfAdministrator(severity apiv1.Event_Severity, kind string, m *apiv1.Administrator, said string) error {
	return c.tell(severity, kind, whereabouts{}, reference("administrator", m), m.GetName()+" "+said+" (key "+m.GetFingerprint()+")")
}
