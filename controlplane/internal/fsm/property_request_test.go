package fsm_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// staff are those who ask and decide in a random log; each has a password and a session when it begins.
var staff = []string{"ann", "bob", "cho", "dan"}

// staffing is what comes before requests, each command made of the state as it then stands.
func staffing() (all []func(*plane) *commandv1.Command) {
	add := func(commands ...*commandv1.Command) {
		for _, c := range commands {
			all = append(all, func(*plane) *commandv1.Command { return c })
		}
	}
	add(sealingKey("key-1", ""), createZone("internet"), createGroup("ops"), builtInRoles(1, "federation-administrator", "user"))
	add(&commandv1.Command{Body: &commandv1.Command_CreateUser{CreateUser: &commandv1.CreateUser{User: &apiv1.User{
		Id: "u-ci", Name: "ci", Kind: apiv1.User_SERVICE, Organization: "home", OrganizationId: "o-home"}}}})
	for _, name := range staff {
		add(createUser(name), resetPassword(name))
		all = append(all, func(p *plane) *commandv1.Command { return p.logIn(name, "s-"+name) },
			func(p *plane) *commandv1.Command { return p.changePassword(name, "s-"+name) })
	}
	// VM 6, of which nothing else is drawn, has a lease that runs.
	add(createVM(6), &commandv1.Command{Body: &commandv1.Command_CreateLease{CreateLease: &commandv1.CreateLease{Lease: &apiv1.Lease{Id: "l", VmId: "vm-6", Days: 1}}}})
	all = append(all, func(p *plane) *commandv1.Command { return p.report(p.usableNow(6)) }, func(p *plane) *commandv1.Command {
		in := &commandv1.PassLease{LeaseId: "l", Step: commandv1.PassLease_START}
		p.view(func(tx *state.Tx) { in.ExpectedRevision = get(p, tx.Leases, "l").GetRevision() })
		return &commandv1.Command{Body: &commandv1.Command_PassLease{PassLease: in}}
	})
	return all
}

// passes are those that need no date first, and all the others.
var passes = []commandv1.PassRequest_What{commandv1.PassRequest_STICK, commandv1.PassRequest_ESCALATE, commandv1.PassRequest_WAIT, commandv1.PassRequest_ORPHAN,
	commandv1.PassRequest_EXPIRE, commandv1.PassRequest_LAPSE, commandv1.PassRequest_REMIND, commandv1.PassRequest_FAIL, commandv1.PassRequest_HOLD, commandv1.PassRequest_MISS}

// scribe draws commands about requests and the people whose they are, as a proposer makes them who has seen all that was before.
type scribe struct {
	*plane
	rt *rapid.T
}

func (d scribe) one(label string, of ...string) string {
	return rapid.SampledFrom(of).Draw(d.rt, label)
}

func (d scribe) flip(label string, oneIn int) bool {
	return rapid.IntRange(1, oneIn).Draw(d.rt, label) == 1
}

// as has somebody act in their session, or now and then with another's; who has none that is good for it gets one first.
func (d scribe) as(name string, c *commandv1.Command) *commandv1.Command {
	session := d.in(name)
	switch {
	case d.flip("another's session", 20):
		session = d.in(d.one("whose", staff...))
	case d.flip("in any case", 10):
	case session.GetId() == "none":
		return d.logIn(name, fmt.Sprint("s-", d.made))
	case session.GetMustChangePassword():
		return d.changePassword(name, session.GetId())
	}
	c.Actor, c.Origin = "user:"+name, &commandv1.Origin{ActorId: "u-" + name, SessionId: session.GetId(), Strength: apiv1.Session_PASSWORD}
	return c
}

// in is the newest session of somebody; one that is none where they have none.
func (d scribe) in(name string) *apiv1.Session {
	newest := &apiv1.Session{Id: "none"}
	d.view(func(tx *state.Tx) {
		if all, err := tx.SessionsOf("u-" + name); err != nil {
			d.Fatal(err)
		} else if len(all) > 0 {
			newest = all[len(all)-1]
		}
	})
	return newest
}

// revision is the newest of a request, or now and then another.
func (d scribe) revision(r *apiv1.Request) string {
	if d.flip("stale", 20) {
		return d.one("revision", "1", "40", "")
	}
	return r.GetRevision()
}

func (d scribe) draw() *commandv1.Command {
	id := d.one("request", "r1", "r1", "r1", "r2")
	if d.flip("about people", 3) {
		return d.person()
	}
	r := d.request(id)
	what := d.one("paper", "draft", "change", "submit", "decide", "withdraw", "withdraw", "retry", "carry out", "end", "pass", "pass", "comment", "detach", "delete", "quota")
	if !d.flip("in any order", 4) {
		what = onward(r)
	}
	switch {
	case r == nil || what == "draft":
		return d.drafted(id)
	case what == "quota":
		return shopMay(vms(rapid.Uint32Range(1, 6).Draw(d.rt, "limit")))
	case what == "change":
		r.Reason, r.OnBehalfOf, r.OnBehalfOfId = d.one("reason", "more", "less"), "", ""
		return d.as("ann", &commandv1.Command{Body: &commandv1.Command_UpdateRequest{UpdateRequest: &commandv1.UpdateRequest{Request: r,
			ExpectedRevision: d.revision(r), By: who(d.one("editor", staff...))}}})
	case what == "submit":
		return d.submits(r)
	case what == "decide":
		return d.decides(r)
	case what == "withdraw":
		return d.as("ann", &commandv1.Command{Body: &commandv1.Command_WithdrawRequest{WithdrawRequest: &commandv1.WithdrawRequest{RequestId: id,
			By: who(d.one("by", "ann", "ann", "bob")), Reason: "enough"}}})
	case what == "retry":
		return &commandv1.Command{Body: &commandv1.Command_RetryRequest{RetryRequest: &commandv1.RetryRequest{RequestId: id}}}
	case what == "carry out":
		return d.carriesOut(r)
	case what == "end":
		open := []string{"op-none"}
		for _, part := range r.GetParts() {
			if part.GetError() == nil && !part.GetDone() {
				open = append(open, part.GetOperation())
			}
		}
		return resolve(open[len(open)-1], apiv1.ResolveOperationRequest_Outcome(rapid.IntRange(1, 3).Draw(d.rt, "outcome")))
	case what == "comment":
		return &commandv1.Command{Body: &commandv1.Command_CommentRequest{CommentRequest: d.says(id)}}
	case what == "detach":
		file := d.one("file", "c-none")
		if f := r.GetFiles(); len(f) > 0 {
			file = f[len(f)-1].GetId()
		}
		return &commandv1.Command{Body: &commandv1.Command_DetachRequest{DetachRequest: &commandv1.DetachRequest{RequestId: id, CommentId: file, By: who(d.one("by", staff...))}}}
	case what == "delete":
		return &commandv1.Command{Body: &commandv1.Command_DeleteRequest{DeleteRequest: &commandv1.DeleteRequest{Id: id, ExpectedRevision: d.revision(r)}}}
	}
	return &commandv1.Command{Actor: "request", Body: &commandv1.Command_PassRequest{PassRequest: &commandv1.PassRequest{RequestId: id, ExpectedRevision: d.revision(r),
		What: rapid.SampledFrom(passes).Draw(d.rt, "what"), Stage: d.one("stage", "s0", "s1"), Reason: d.one("why", "", "so it is"),
		RemindAt: timestamppb.New(d.now.Add(time.Minute))}}}
}

// onward is what comes next of a request where nothing comes between.
func onward(r *apiv1.Request) string {
	switch {
	case request.Editable(r):
		return "submit"
	case r.GetFulfilment() == apiv1.Request_EXECUTING:
		return "end"
	case r.GetFulfilment() == apiv1.Request_FAILED:
		return "retry"
	case r.GetApproval() == apiv1.Request_APPROVED:
		return "carry out"
	case request.Deciding(r):
		return "decide"
	}
	return "comment"
}

func (d scribe) drafted(id string) *commandv1.Command {
	name := d.one("requester", "ann", "ann", "ann", "ci")
	m := &apiv1.Request{
		Id: id, Kind: apiv1.RequestKind_CREATE, Requester: name, RequesterId: "u-" + name, Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-business",
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web", Quantity: 2, NamePattern: "web-#"}}},
	}
	if d.flip("number", 3) {
		m.ExternalRef, m.SentSha256 = d.one("ref", "CHG-1", "CHG-2"), digest(d.one("body", "a", "b"))
	}
	if d.flip("emergency", 4) {
		m.ChangeType = apiv1.ChangeType_EMERGENCY
	}
	if d.flip("for another", 4) {
		m.OnBehalfOf, m.OnBehalfOfId = "bob", "u-bob"
	}
	if d.flip("bounded", 3) {
		m.DecideBy, m.CarryOutBy = timestamppb.New(d.now.Add(time.Minute)), timestamppb.New(d.now.Add(2*time.Minute))
	}
	in := &commandv1.CreateRequest{Request: m}
	c := &commandv1.Command{Body: &commandv1.Command_CreateRequest{CreateRequest: in}}
	if !d.flip("submitted as it is made", 3) {
		return c
	}
	m = proto.CloneOf(m)
	m.Approval = apiv1.Request_DRAFT
	in.Submit = d.submits(m).GetSubmitRequest()
	return d.as("ann", c)
}

func (d scribe) submits(r *apiv1.Request) *commandv1.Command {
	c := d.submissionOf(r, []string{"s0", "s1"}[:rapid.SampledFrom([]int{1, 1, 2}).Draw(d.rt, "stages")]...)
	in := c.GetSubmitRequest()
	in.ExpectedRevision = d.revision(r)
	in.By = who(d.one("by", "ann", "ann", "ann", "cho", "ci"))
	first, _ := strconv.Atoi(r.GetId()[1:])
	for i, part := range in.GetRequest().GetParts() {
		part.Name, part.VmId = fmt.Sprintf("%s-%d", r.GetId(), i), fmt.Sprintf("vm-%d", 10*first+i)
	}
	for _, s := range in.GetRequest().GetStages() {
		s.Sequence *= rapid.Uint32Range(0, 1).Draw(d.rt, "in order")
		s.Needed, s.Denials = rapid.SampledFrom([]uint32{1, 1, 1, 2}).Draw(d.rt, "needed"), rapid.Uint32Range(1, 2).Draw(d.rt, "denials")
		s.OnDue = apiv1.StageTemplate_OnDue(rapid.IntRange(0, 3).Draw(d.rt, "on due"))
		in.Openings = append(in.Openings, &commandv1.DecideRequest_Opening{Stage: s.GetName(), RemindAt: timestamppb.New(d.now.Add(5 * time.Second)), DueAt: timestamppb.New(d.now.Add(30 * time.Second))})
	}
	in.ReckonedAt = timestamppb.New(d.now)
	if d.flip("by a clock that is wrong", 20) {
		in.ReckonedAt = timestamppb.New(d.now.Add(time.Hour))
	}
	if d.flip("not by people first", 4) {
		if in.AtOnce = r.GetChangeType() == apiv1.ChangeType_EMERGENCY; !in.AtOnce {
			in.Automatic = "small"
		}
	}
	if v := d.policies(); v > 0 {
		in.Request.Policy, in.Request.PolicyVersion = "lax", v
	}
	if err := request.Freeze(in.GetRequest()); err != nil {
		d.Fatal(err)
	}
	return d.as("ann", c)
}

func (d scribe) decides(r *apiv1.Request) *commandv1.Command {
	name := d.one("who", "bob", "bob", "cho", "cho", "dan", "ann")
	stage := d.one("stage", "s0", "s1")
	for _, s := range r.GetStages() {
		if s.GetState() == apiv1.Stage_OPEN && !d.flip("another stage", 6) {
			stage = s.GetName()
		}
	}
	in := &commandv1.DecideRequest{RequestId: r.GetId(), Decision: &apiv1.Decision{
		Id: fmt.Sprint("d-", d.made), Stage: stage, Actor: name, ActorId: "u-" + name, Comment: "seen", SeenHash: r.GetFrozenHash(),
		Verdict: apiv1.Decision_Verdict(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 3}).Draw(d.rt, "verdict")),
	}}
	if d.flip("another hash", 10) {
		in.Decision.SeenHash = digest("something else")
	}
	if d.flip("in a group", 15) {
		in.GroupIds = []string{"g-ops"}
	}
	if d.flip("delegate", 4) {
		m := &apiv1.Delegation{Id: d.one("delegation", "d1", "d2"), FromUser: d.one("for", staff...), ToUser: name}
		d.view(func(tx *state.Tx) {
			if kept := get(d, tx.Delegations, m.GetId()); kept != nil {
				m = kept
			}
		})
		name = m.GetToUser()
		in.Decision.Actor, in.Decision.ActorId = name, "u-"+name
		in.Decision.ActingFor, in.Decision.ActingForId, in.Decision.Delegation = m.GetFromUser(), "u-"+m.GetFromUser(), m.GetId()
	}
	return d.as(name, &commandv1.Command{Body: &commandv1.Command_DecideRequest{DecideRequest: in}})
}

func (d scribe) carriesOut(r *apiv1.Request) *commandv1.Command {
	var left []uint32
	for i, part := range r.GetParts() {
		if !part.GetDone() {
			left = append(left, uint32(i))
		}
	}
	c := d.carryOut(r.GetId(), fmt.Sprint(d.made), left...)
	in := c.GetCarryOutRequest()
	in.ExpectedRevision = d.revision(r)
	for _, part := range in.GetParts() {
		part.VmId = r.GetParts()[part.GetIndex()].GetVmId()
	}
	return c
}

func (d scribe) says(id string) *commandv1.CommentRequest {
	name := d.one("author", staff...)
	in := &commandv1.CommentRequest{RequestId: id, Comment: &apiv1.Comment{Id: fmt.Sprint("c-", d.made), Author: name, AuthorId: "u-" + name, Text: "a word"}}
	if d.flip("file", 2) {
		in.Comment.File, in.Content = "plan.txt", []byte("plan")
	}
	return in
}

// has reports whether something is there.
func (d scribe) has(get func(*state.Tx) error) (there bool) {
	d.view(func(tx *state.Tx) { there = get(tx) == nil })
	return there
}

// policies is the version of the one policy that there may be; 0 where there is none.
func (d scribe) policies() (version uint32) {
	d.view(func(tx *state.Tx) { version = get(d, tx.ApprovalPolicies, "p-lax").GetVersion() })
	return version
}

// person draws what becomes of the people, of what they have and of what lets them decide.
func (d scribe) person() *commandv1.Command {
	name, by := d.one("name", staff...), d.one("by", staff...)
	hand := func(c *commandv1.Command) *commandv1.Command {
		if d.flip("by the administrator", 3) {
			return c
		}
		return d.as(by, c)
	}
	delegation, binding := d.one("delegation", "d1", "d1", "d2"), d.one("binding", "b1", "b1", "b2")
	policy := &apiv1.ApprovalPolicy{Id: "p-lax", Name: "lax", Enabled: d.flip("enabled", 2), Stages: []*apiv1.StageTemplate{{Name: "s0", Eligible: &apiv1.Eligibility{Users: []string{name}}}}}
	switch d.one("person", "reset", "log in", "log in", "choose", "choose", "in or out", "enter", "leave", "delegate", "delegate",
		"bind", "bind", "shorten", "shorten", "cross", "cross", "lease", "policy", "drop policy", "policy", "drop policy", "log out", "token", "end token") {
	case "reset":
		return hand(resetPassword(name))
	case "log in":
		return d.logIn(name, fmt.Sprint("s-", d.made))
	case "choose":
		return d.changePassword(name, d.in(name).GetId())
	case "in or out":
		for _, away := range staff {
			disabled := false
			d.view(func(tx *state.Tx) { disabled = get(d, tx.Users, "u-"+away).GetDisabled() })
			if disabled && !d.flip("another", 5) {
				return enableUser(away)
			}
		}
		return hand(disableUser(name))
	case "enter":
		return hand(enter("ops", name))
	case "leave":
		return hand(leave("ops", name))
	case "delegate":
		if d.has(func(tx *state.Tx) error { _, err := tx.Delegations.Get(delegation); return err }) && !d.flip("twice", 4) {
			return d.as(by, &commandv1.Command{Body: &commandv1.Command_DeleteDelegation{DeleteDelegation: &commandv1.DeleteNoun{Id: delegation}}})
		}
		return d.as(by, &commandv1.Command{Body: &commandv1.Command_CreateDelegation{CreateDelegation: &commandv1.CreateDelegation{Delegation: &apiv1.Delegation{
			Id: delegation, FromUser: by, FromUserId: "u-" + by, ToUser: name, ToUserId: "u-" + name, EndsAt: timestamppb.New(d.now.Add(30 * time.Second))}}}})
	case "bind":
		if d.has(func(tx *state.Tx) error { _, err := tx.RoleBindings.Get(binding); return err }) && !d.flip("twice", 4) {
			return hand(take(binding))
		}
		return hand(give(binding, d.one("role", "federation-administrator", "user"), d.one("bound", name, "group:ops"), d.one("where", "", "project:shop"), d.now.Add(time.Minute)))
	case "shorten":
		return hand(shortenBinding(binding, d.sooner()))
	case "cross":
		if !d.has(func(tx *state.Tx) error { _, err := tx.Crossings.Get("x1"); return err }) || d.flip("twice", 4) {
			return hand(&commandv1.Command{Body: &commandv1.Command_CreateCrossing{CreateCrossing: &commandv1.CreateCrossing{Crossing: &apiv1.Crossing{
				Id: "x1", Project: "shop", ProjectId: "p-shop", SourceZone: "internet", SourceZoneId: "z-internet", Zone: "business", ZoneId: "z-business",
				Permissions: []string{"vm.start"}, EndsAt: timestamppb.New(d.now.Add(time.Minute))}}}})
		}
		return hand(&commandv1.Command{Body: &commandv1.Command_ShortenCrossing{ShortenCrossing: &commandv1.ShortenCrossing{
			CrossingId: "x1", EndsAt: timestamppb.New(d.sooner()), Reason: "enough"}}})
	case "lease":
		return hand(&commandv1.Command{Body: &commandv1.Command_ShortenLease{ShortenLease: &commandv1.ShortenLease{
			LeaseId: "l", ExpiresAt: timestamppb.New(d.sooner()), Reason: "enough"}}})
	case "policy":
		if d.policies() == 0 != d.flip("twice", 5) {
			return hand(&commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{ApprovalPolicy: policy}}})
		}
		return hand(&commandv1.Command{Body: &commandv1.Command_UpdateApprovalPolicy{UpdateApprovalPolicy: &commandv1.UpdateApprovalPolicy{ApprovalPolicy: policy}}})
	case "drop policy":
		return hand(&commandv1.Command{Body: &commandv1.Command_DeleteApprovalPolicy{DeleteApprovalPolicy: &commandv1.DeleteNoun{Id: "p-lax"}}})
	case "log out":
		return &commandv1.Command{Body: &commandv1.Command_DeleteSession{DeleteSession: &commandv1.DeleteNoun{Id: d.in(name).GetId()}}}
	case "token":
		c := createToken("robot")
		m := c.GetCreateAccessToken().GetAccessToken()
		m.Project, m.ProjectId, m.User, m.UserId = "", "", "ci", "u-ci"
		return hand(c)
	}
	return hand(&commandv1.Command{Body: &commandv1.Command_DeleteAccessToken{DeleteAccessToken: &commandv1.DeleteNoun{Id: "t-robot"}}})
}

// sooner is an end that is earlier than those that are given, or now and then is not.
func (d scribe) sooner() time.Time {
	return d.now.Add(time.Duration(rapid.IntRange(-1, 70).Draw(d.rt, "sooner")) * time.Second)
}

// TestRandomLogsTakeEveryKindOfPaper: what is drawn is not refused all along, or the other tests would hold of refusals alone. The rarest
// are carried out in three of a hundred logs, so hundreds are drawn until each has been. What quotas count is right after each, and what is
// recorded of it says what it was about.
func TestRandomLogsTakeEveryKindOfPaper(t *testing.T) {
	missing := map[string]bool{}
	for _, kind := range []string{
		"create_request", "update_request", "submit_request", "withdraw_request", "decide_request", "comment_request", "retry_request", "carry_out_request", "pass_request",
		"create_delegation", "reset_password", "change_password", "begin_session", "disable_user", "add_group_member", "remove_group_member",
		"create_role_binding", "create_approval_policy", "update_approval_policy", "delete_approval_policy", "create_access_token",
		"shorten_role_binding", "create_crossing", "shorten_crossing", "create_lease", "pass_lease", "shorten_lease",
	} {
		missing[kind] = true
	}
	for drawn := 0; len(missing) > 0; {
		if drawn >= 2000 {
			t.Fatalf("of %d random logs none has one of these that was carried out: %v", drawn, slices.Sorted(maps.Keys(missing)))
		}
		rapid.Check(t, func(rt *rapid.T) {
			drawn++
			p := empty(rt)
			for i, r := range history(rt, p) {
				c := &commandv1.Command{}
				if proto.Unmarshal(p.log[i].Data, c) == nil && r.GetProblem() == nil {
					delete(missing, kindOf(c))
				}
			}
			p.sumsHold()
			for _, e := range p.audit(0) {
				if e.GetOutcome() == apiv1.AuditEntry_DONE && e.GetTarget().GetId() != "" && e.GetTarget().GetName() == "" && e.GetTarget().GetKind() != "backup" {
					rt.Errorf("the record does not name what this was about: %v", e)
				}
			}
		})
	}
}

// kindOf is what a command is called in the log.
func kindOf(c *commandv1.Command) string {
	m := c.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); f != nil {
		return string(f.Name())
	}
	return ""
}
