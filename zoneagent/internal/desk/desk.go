// Package desk serves a zone's own operators while the zone is cut off: they log in with what the zone knows of them, see what it
// holds, and switch its VMs on and off. Each thing that is done, and each that is refused, is a line of the zone's own log, in the same
// transaction; all of it goes up by the journal when the link is back.
//
// One agent serves: the one that owns the zone's link. The others pass calls to it, as they do with those for the control plane.
package desk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/door"
	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// Store is the zone's store. etcdstore.Store is one.
type Store interface {
	Begin(own *etcdstore.Ownership) *etcdstore.Tx
	Get(ctx context.Context, space etcdstore.Space, kind, id string) (etcdstore.Change, error)
	LocalSessions(ctx context.Context) ([]*zonev1.LocalSession, error)
	Unanswered(ctx context.Context, own *etcdstore.Ownership) (map[string]string, error)
	GiveUp(ctx context.Context, own *etcdstore.Ownership, overrides map[string]string) error
	Incarnation() (*zonev1.Incarnation, <-chan struct{})
}

// Config is what a desk is made of. Every field must be set.
type Config struct {
	Store   Store
	Picture Picture
	ZoneID  string
	// Federation and the zone's name make the name under which its log is signed; Seed is of the key.
	Federation string
	Seed       []byte
	// SealingKey opens what is sealed to the zone, with Public; ChallengeKey makes challenges. 32 bytes each.
	SealingKey, Public, ChallengeKey []byte
	// Patience is how long the link is down before operators log in here: what is down for less is about to be back.
	Patience time.Duration
	Now      func() time.Time
	Log      *slog.Logger
}

// Desk serves while this agent owns the zone's link. Safe for concurrent use.
type Desk struct {
	Config
	reader *Reader
	doors  *door.Doors

	mu sync.Mutex // held by whoever writes
	// Of the ownership: how far the log has grown, nil where that is to be read.
	own     *etcdstore.Ownership
	grown   *zonev1.LocalLog
	refused map[refusal]*refusals

	// asked is since when an override, by its id, waits for an answer though the control plane has had it. Look alone uses it.
	asked map[string]time.Time

	knows sync.Mutex
	known map[string]known // operators by id
}

// known is an operator as it was opened.
type known struct {
	generation *apiv1.Generation
	*linkv1.Operator
}

// New returns a desk at which nobody has logged in.
func New(c Config) *Desk {
	return &Desk{Config: c, reader: NewReader(c.Picture), doors: door.New(c.Now, rand.Reader), known: map[string]known{}, refused: map[refusal]*refusals{}, asked: map[string]time.Time{}}
}

// Call is a call at an edge of the zone.
type Call struct {
	Method     string
	Credential string // of the metadata: Bearer naru_l_…
	TraceID    string
	Client     string // address of the client
	Request    proto.Message
	// Since is when the link went down.
	Since time.Time
}

// answerTime is how long the control plane may take to answer an override that it has had.
const answerTime = time.Minute

// Look is the owner's care while the zone is connected or not: what was refused and has no line yet gets one, and an override that the
// control plane has had and does not answer is given up.
func (d *Desk) Look(ctx context.Context, own *etcdstore.Ownership, connected bool) error {
	if err := d.flush(ctx, own); err != nil || !connected {
		clear(d.asked)
		return err
	}
	open, err := d.Store.Unanswered(ctx, own)
	if err != nil {
		return err
	}
	now, lost, asked := d.Now(), map[string]string{}, map[string]time.Time{}
	for vm, id := range open {
		since, known := d.asked[id]
		if !known {
			since = now
		}
		if asked[id] = since; now.Sub(since) >= answerTime {
			lost[vm] = id
		}
	}
	if d.asked = asked; len(lost) == 0 {
		return nil
	}
	d.Log.Warn("overrides are not answered by the control plane, and are given up", "count", len(lost))
	return d.Store.GiveUp(ctx, own, lost)
}

// Local reports whether a credential is of a session that was begun here: nobody else is shown it.
func Local(credential string) bool {
	return strings.HasPrefix(credential, "Bearer "+locallogin.TokenPrefix)
}

// Takes reports whether a call that the control plane cannot answer is for the desk.
func Takes(method, credential string) bool {
	switch method {
	case apiv1.SessionService_GetLoginOptions_FullMethodName, apiv1.SessionService_BeginLocalLogin_FullMethodName, apiv1.SessionService_LogInLocally_FullMethodName:
		return true
	}
	return Local(credential)
}

// Serve answers a call. own is the link's. Errors: problems, LINK_DOWN where the control plane can answer it once the
// link is up.
func (d *Desk) Serve(ctx context.Context, own *etcdstore.Ownership, c Call, reply proto.Message) error {
	if wait := d.Patience - d.Now().Sub(c.Since); wait > 0 {
		return problem.New(problem.LinkDown, "the zone has no session with the control plane",
			fmt.Sprintf("Try again when the link is up. If it stays down, the zone's own operators can log in here in %s: naru login --local.", max(wait.Round(time.Second), time.Second)))
	}
	zone := d.zone()
	if zone == nil {
		return problem.New(problem.LinkDown, "the zone has not heard from the control plane yet, and knows no operators", "Try again when the link is up.")
	}
	if err := shown(zone, c.Method); err != nil {
		return err
	}
	switch r := c.Request.(type) {
	case *apiv1.GetLoginOptionsRequest:
		proto.Merge(reply, &apiv1.GetLoginOptionsResponse{Zone: zone.GetName(), CutOff: true})
		return nil
	case *apiv1.BeginLocalLoginRequest:
		return d.beginLogin(zone, r, reply.(*apiv1.BeginLocalLoginResponse))
	case *apiv1.LogInLocallyRequest:
		return d.logIn(ctx, own, zone, c, r, reply.(*apiv1.LogInLocallyResponse))
	}
	who, err := d.whose(ctx, c.Credential)
	if err != nil {
		return err
	}
	who.zone, who.call, who.own = zone, c, own
	switch r := c.Request.(type) {
	case *apiv1.LogOutRequest:
		return d.write(ctx, own, who.entry("session.log-out", nil), func(tx *etcdstore.Tx) { tx.DeleteLocalSession(who.GetId()) })
	case *apiv1.WhoAmIRequest:
		proto.Merge(reply, &apiv1.WhoAmIResponse{
			Kind: "user", Name: who.GetUser(), User: who.GetUser(), Zone: zone.GetName(), ExpiresAt: who.GetExpiresAt(), SessionId: who.GetId(), Strength: who.GetStrength(),
		})
		return nil
	case *apiv1.StartVMRequest:
		op, err := d.override(ctx, who, wish{apiv1.VM_RUNNING, false}, r.GetVm(), r.GetProject())
		reply.(*apiv1.StartVMResponse).Operation = op
		return err
	case *apiv1.StopVMRequest:
		op, err := d.override(ctx, who, wish{apiv1.VM_STOPPED, r.GetForce()}, r.GetVm(), r.GetProject())
		reply.(*apiv1.StopVMResponse).Operation = op
		return err
	}
	if err := who.may(c.Method); err != nil {
		return err
	}
	return d.reader.Read(c.Request, reply, Sight{Whole: true}, c.Since)
}

// zone is the zone as the control plane last wished it; nil before it ever did.
func (d *Desk) zone() (zone *apiv1.Zone) {
	d.Picture.Nouns("zone", func(desired, _ proto.Message) {
		if z := desired.(*apiv1.Zone); z.GetId() == d.ZoneID {
			zone = z
		}
	})
	return zone
}

// shown refuses what the zone's policy does not let its edge call, as the control plane does.
func shown(zone *apiv1.Zone, method string) error {
	if schema.Shows(zone.GetPolicy().GetMethods(), method) {
		return nil
	}
	return problem.Newf(problem.Forbidden, "An administrator says what may be called here: naru zone policy.", "the policy of zone %s does not let its edge call %s",
		zone.GetName(), method[strings.LastIndexByte(method, '.')+1:])
}

// permissionOf is what a role has to have for a method, and whether a zone that is cut off answers it at all.
func permissionOf(method string) (permission string, answers bool) {
	d := schema.Method(method)
	if d == nil {
		return "", false
	}
	permission, _ = proto.GetExtension(d.Options(), apiv1.E_Permission).(string)
	edge, _ := proto.GetExtension(d.Options(), apiv1.E_Edge).(apiv1.Edge)
	return permission, edge == apiv1.Edge_EDGE_LOCAL_READ || edge == apiv1.Edge_EDGE_LOCAL_ACT
}

// person is somebody who has logged in.
type person struct {
	*apiv1.Session
	operator *linkv1.Operator
	zone     *apiv1.Zone
	call     Call
	own      *etcdstore.Ownership
}

// may refuses what the person's roles in the zone do not permit.
func (p *person) may(method string) error {
	permission, answers := permissionOf(method)
	if !answers {
		return problem.New(problem.ZoneUnavailable, "the zone is cut off, and this is the control plane's to do", "Log in again when the link is up: naru login.")
	}
	if slices.Contains(p.operator.GetPermissions(), permission) {
		return nil
	}
	return problem.Newf(problem.Forbidden, "Ask somebody who has it in the whole zone, or try again when the link is up.",
		"%s does not have the permission %s on everything in zone %s, and while the zone is cut off nothing else counts", p.GetUser(), permission, p.zone.GetName())
}

// entry is a line of the log about what the person does.
func (p *person) entry(action string, vm *apiv1.VM) *apiv1.AuditEntry {
	e := &apiv1.AuditEntry{
		Actor: "user:" + p.GetUser(), ActorId: p.GetUserId(), Action: action, Outcome: apiv1.AuditEntry_DONE, Zone: p.zone.GetName(), ZoneId: p.zone.GetId(),
		ViaZone: p.zone.GetName(), SessionId: p.GetId(), Strength: p.GetStrength(), TraceId: p.call.TraceID, Digest: digestOf(p.call.Request),
	}
	if vm != nil {
		e.Target = &apiv1.Reference{Kind: "vm", Id: vm.GetId(), Name: vm.GetName()}
		e.Project, e.ProjectId = vm.GetProject(), vm.GetProjectId()
	}
	return e
}

func missing(err error) bool { return errors.Is(err, etcdstore.ErrNotFound) }
