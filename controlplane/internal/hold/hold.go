// Package hold says who could have acted as somebody, on a snapshot of the state. Whoever gives another a password, takes their
// authenticator away, links them with somebody at an identity provider, makes a token of a service or a certificate of an administrator
// may have called in their name since. What the record calls the deed of one may then be the deed of the other, and of four eyes two are
// the same.
//
// It is about requests alone: nobody decides on what those asked for, or helped write, whose accounts they have had hold of; nor do
// those decide whose accounts somebody concerned has had hold of. Who has had hold of both, of who asks and of who decides, and is neither,
// is not looked for: a help desk gives everybody their first password, and nobody could decide on anything.
package hold

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Behind returns the ids of those who could have acted as somebody of whom the ids are given, and these ids themselves, in order. An
// id is that of a user, an administrator or an access token.
func Behind(tx *state.Tx, ids ...string) ([]string, error) {
	var all []string
	for next := slices.Clone(ids); len(next) > 0; {
		id := next[0]
		if next = next[1:]; id == "" || slices.Contains(all, id) {
			continue
		}
		all = append(all, id)
		more, err := holders(tx, id)
		if err != nil {
			return nil, err
		}
		next = append(next, more...)
	}
	slices.Sort(all)
	return all, nil
}

// holders are those who have had hold of one account themselves.
func holders(tx *state.Tx, id string) (ids []string, err error) {
	user, err := tx.Users.Get(id)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return holdersOfCredential(tx, id)
	case err != nil:
		return nil, err
	case user.GetKind() == apiv1.User_SERVICE:
		for t, err := range tx.AccessTokens.All(state.Scope{"user_id": id}) {
			if err != nil {
				return nil, err
			}
			ids = append(ids, t.GetCreatedById(), t.GetCreatedByUserId()) // the second stays when what the first made it with is gone
		}
		return ids, nil
	}
	kept, err := tx.Credentials(id)
	if err := present(err); err != nil {
		return nil, err
	}
	ids = kept.GetSetBy()
	for m, err := range tx.Identities.All(state.Scope{"user_id": id}) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, m.GetSetBy()...)
	}
	return ids, nil
}

// holdersOfCredential are who made an administrator's certificates, and who that is; whoever made a token, and whose it is.
func holdersOfCredential(tx *state.Tx, id string) ([]string, error) {
	a, err := tx.Administrators.Get(id)
	if err == nil {
		return append([]string{a.GetUserId()}, a.GetMakerIds()...), nil
	}
	if err := present(err); err != nil {
		return nil, err
	}
	t, err := tx.AccessTokens.Get(id)
	return []string{t.GetCreatedById(), t.GetCreatedByUserId(), t.GetUserId()}, present(err)
}

func present(err error) error {
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}

// Parties are those who have a part in a request, and those who could have had it in their name.
type Parties struct {
	tx *state.Tx
	r  *apiv1.Request
	// own have a part themselves; part are these, and those who could have acted as them.
	own, part []string
}

// In returns the parties of a request as it stands.
func In(tx *state.Tx, r *apiv1.Request) (*Parties, error) {
	own := request.Concerned(r)
	part, err := Behind(tx, append(slices.Clone(own), r.GetBehindIds()...)...)
	return &Parties{tx, r, own, part}, err
}

// Meets returns who brings somebody together with the request: themselves, where they have a part in it or could have had it in the
// name of one who has, or one who has a part and could have acted as them; empty for nobody.
func (p *Parties) Meets(id string) (string, error) {
	if slices.Contains(p.part, id) {
		return id, nil
	}
	ids, err := Behind(p.tx, id)
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(ids, func(id string) bool { return slices.Contains(p.own, id) }); i >= 0 {
		return ids[i], nil
	}
	return "", nil
}

// Author finds who has a part in a request and wrote what is to let it through without people, or before them: the policy, or the
// offering that names it. wrote says which; it is empty where nobody has.
func (p *Parties) Author(policy *apiv1.ApprovalPolicy) (wrote string, err error) {
	if by, err := p.Meets(policy.GetCreatedById()); err != nil || by != "" {
		return fmt.Sprintf("version %d of approval policy %s", policy.GetVersion(), policy.GetName()), err
	}
	ask := p.r.GetSpecification().GetCreate()
	if ask.GetOfferingId() == "" {
		return "", nil
	}
	o, err := p.tx.Offerings.Version(ask.GetOfferingId(), ask.GetOfferingVersion())
	if errors.Is(err, state.ErrNotFound) || err == nil && o.GetApprovalPolicy() != policy.GetName() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	by, err := p.Meets(o.GetPublishedById())
	if by == "" {
		return "", err
	}
	return fmt.Sprintf("version %d of offering %s", o.GetVersion(), o.GetName()), err
}

// Impartial refuses a decision of somebody who has a part in the request, has decided on it already, or could be the deed of somebody
// who has a part, whether for themselves or in another's place.
func (p *Parties) Impartial(d *apiv1.Decision) error {
	if err := request.Impartial(p.r, d); err != nil {
		return err
	}
	if err := p.elsewhere(d); err != nil {
		return err
	}
	for _, who := range []request.Person{{ID: d.GetActorId(), Name: d.GetActor()}, {ID: d.GetActingForId(), Name: d.GetActingFor()}} {
		if who.ID == "" {
			continue
		}
		if u, err := p.tx.Users.Get(who.ID); present(err) != nil {
			return err
		} else if by := request.DecidedBy(p.r, u); err == nil && by != nil {
			return request.Again(p.r, who.Name, by)
		}
		by, err := p.Meets(who.ID)
		if err != nil {
			return err
		}
		switch by {
		case "":
		case who.ID:
			return problem.Newf(problem.Forbidden, "Somebody else has to decide.",
				"%s could have asked for request %s, or helped write it, in the name of who did: by a password that they gave, or a token or certificate that they made", who.Name, p.r.GetName())
		default:
			return problem.Newf(problem.Forbidden, "Somebody else has to decide; or somebody who has no part in it gives "+who.Name+" another password, and ends links that they made: naru user reset-password "+who.Name+", naru identity-provider unlink.",
				"%s has had hold of the account of %s, by a password, a second factor or a link with somebody elsewhere, and has a part in request %s", p.name(by), who.Name, p.r.GetName())
		}
	}
	return nil
}

// elsewhere refuses who decided in another system and goes there by what somebody is called here who has a part in the
// request, has decided on it here, or is excluded from the stage.
func (p *Parties) elsewhere(d *apiv1.Decision) error {
	approver := strings.TrimSpace(d.GetExternalApprover())
	if approver == "" {
		return nil
	}
	var excluded []string
	for _, name := range request.StageOf(p.r, d.GetStage()).GetExcluded() {
		u, err := p.tx.Users.ByName(name, nil)
		if err := present(err); err != nil {
			return err
		}
		excluded = append(excluded, u.GetId())
	}
	for _, of := range []struct {
		ids  []string
		code problem.Code
		why  string
	}{
		{p.part, problem.Forbidden, "who has a part in request " + p.r.GetName() + ", or could have had it in the name of who has"},
		{request.Voters(p.r), problem.WrongState, "who has decided on request " + p.r.GetName() + " already; everybody counts once"},
		{excluded, problem.Forbidden, "whom the policy excludes from stage " + d.GetStage()},
	} {
		u, err := p.called(approver, of.ids)
		if err == nil && u != nil {
			err = problem.Newf(of.code, "Somebody else has to decide; or, where it is somebody else of that name, say so: external_approver tells them apart.",
				"%s is what %s is called here, %s", approver, u.GetName(), of.why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// called returns the first of those of whom the ids are given who is called so here; nil for none.
func (p *Parties) called(name string, ids []string) (*apiv1.User, error) {
	for _, id := range ids {
		u, err := p.tx.Users.Get(id)
		if err := present(err); err != nil {
			return nil, err
		}
		if request.Called(u, name) {
			return u, nil
		}
	}
	return nil, nil
}

func (p *Parties) name(id string) string {
	if u, err := p.tx.Users.Get(id); err == nil {
		return u.GetName()
	}
	if a, err := p.tx.Administrators.Get(id); err == nil {
		return "administrator " + a.GetName()
	}
	return "somebody"
}
