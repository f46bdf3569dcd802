package desk

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

const zoneID = "0192f000-0000-7000-8000-000000000001"

// zone is one that is cut off, with a real store, its desk and its operators.
type zone struct {
	*testing.T
	*Desk
	store    *etcdstore.Store
	own      *etcdstore.Ownership
	sink     *etcdstore.DesiredSink
	public   []byte // of what is sealed to it
	revision uint64
	now      time.Time
	since    time.Time
	from     string // address of whoever calls
}

func newZone(t *testing.T) *zone {
	t.Helper()
	at := fmt.Sprintf("127.%d.%d.1", 1+rand.IntN(250), rand.IntN(250))
	store, err := etcdstore.Open(t.Context(), etcdstore.Config{
		Zone: zoneID, Agent: "agent-1", Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Member: &etcdstore.MemberConfig{Peer: at + ":2380", Client: at + ":2379", Tick: 10 * time.Millisecond, Election: 100 * time.Millisecond, NoSync: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	z := &zone{T: t, store: store, now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)}
	z.since = z.now.Add(-time.Hour)
	private, public, err := sealed.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	z.public = public
	z.Desk = New(Config{
		Store: store, Picture: store.Picture(), ZoneID: zoneID, Federation: "naru.test", Seed: bytes.Repeat([]byte{7}, 32), SealingKey: private, Public: public,
		ChallengeKey: bytes.Repeat([]byte{8}, 32), Patience: 30 * time.Second, Now: func() time.Time { return z.now }, Log: slog.New(slog.DiscardHandler),
	})
	if z.own, err = store.Campaign(t.Context(), etcdstore.UplinkName); err != nil {
		t.Fatal(err)
	}
	z.sink = store.DesiredSink(z.own)
	z.send(&linkv1.Object{Noun: &linkv1.Object_Zone{Zone: &apiv1.Zone{Id: zoneID, Name: "business"}}})
	z.vm("vm-1", "web", func(*apiv1.VM) {})
	return z
}

// send has the control plane wish for something, and waits until the picture shows it.
func (z *zone) send(o *linkv1.Object) {
	z.Helper()
	after := z.revision
	z.revision++
	o.Revision = z.revision
	if vm := o.GetVm(); vm != nil {
		vm.Generation = &apiv1.Generation{Epoch: 1, Index: z.revision}
	}
	if l := o.GetLocalOperator(); l != nil {
		l.Generation = &apiv1.Generation{Epoch: 1, Index: z.revision}
	}
	if err := z.sink.Commit(z.Context(), &linkv1.StateChunk{Epoch: 1, After: after, Through: z.revision, Full: after == 0, End: true, Objects: []*linkv1.Object{o}}); err != nil {
		z.Fatal(err)
	}
	z.shown()
}

// shown waits until the picture shows what the store holds: a tick of its own is written, and waited for.
func (z *zone) shown() {
	z.Helper()
	mark := &apiv1.Zone{Id: zoneID, Name: fmt.Sprint(rand.Int64())}
	z.put(mark)
	for seen := false; !seen; {
		z.store.Picture().Nouns("zone", func(_, observed proto.Message) {
			m, ok := observed.(*apiv1.Zone)
			seen = ok && m.GetName() == mark.GetName()
		})
		if z.Context().Err() != nil {
			z.Fatal("the picture does not follow")
		}
		runtime.Gosched()
	}
}

// observe has the zone report a noun, and waits until the picture shows it.
func (z *zone) observe(noun proto.Message) {
	z.Helper()
	z.put(noun)
	z.shown()
}

func (z *zone) put(noun proto.Message) {
	z.Helper()
	tx := z.store.Begin(z.own)
	tx.PutObserved(noun)
	if _, err := tx.Commit(z.Context()); err != nil {
		z.Fatal(err)
	}
}

func (z *zone) vm(id, project string, change func(*apiv1.VM)) {
	z.Helper()
	vm := &apiv1.VM{Id: id, Name: "name-" + id, Project: project, ProjectId: "p-" + project, Zone: "business", ZoneId: zoneID, DesiredState: apiv1.VM_RUNNING, Operation: "op"}
	change(vm)
	z.send(&linkv1.Object{Noun: &linkv1.Object_Vm{Vm: vm}})
}

// operator makes somebody an operator of the zone, who logs in with a password and a machine.
type operator struct {
	name, password string
	device         []byte
	root           []byte
}

func (z *zone) operator(name string, change func(*linkv1.Operator)) operator {
	z.Helper()
	o := operator{name: name, password: "password of " + name, device: bytes.Repeat([]byte{3}, 32)}
	salt := []byte("salt of sixteen " + name)[:16]
	o.root = locallogin.Root(o.password, salt)
	kept := sha256.Sum256(o.device)
	says := &linkv1.Operator{
		User: name, UserId: "u-" + name, Salt: salt, PublicKey: z.key(o.root).Public().(ed25519.PublicKey), Devices: [][]byte{locallogin.Device(kept[:], zoneID)},
		Permissions: []string{"operation.read", "vm.read", "vm.start", "vm.stop", "zone.read"},
	}
	change(says)
	b, err := sealed.Message(z.public, sealed.ForOperator(zoneID, says.GetUserId()), says)
	if err != nil {
		z.Fatal(err)
	}
	z.send(&linkv1.Object{Noun: &linkv1.Object_LocalOperator{LocalOperator: &linkv1.LocalOperator{Id: says.GetUserId(), Sealed: b}}})
	return o
}

func (z *zone) key(root []byte) ed25519.PrivateKey {
	z.Helper()
	k, err := locallogin.Key(root, zoneID)
	if err != nil {
		z.Fatal(err)
	}
	return k
}

func (z *zone) call(credential string, method string, req, reply proto.Message) error {
	return z.Serve(z.Context(), z.own, Call{Method: method, Credential: credential, Request: req, Since: z.since, Client: z.from}, reply)
}

// login logs somebody in, and returns their credential.
func (z *zone) login(o operator, change func(*apiv1.LogInLocallyRequest)) (credential string, err error) {
	z.Helper()
	begun := &apiv1.BeginLocalLoginResponse{}
	if err := z.call("", apiv1.SessionService_BeginLocalLogin_FullMethodName, &apiv1.BeginLocalLoginRequest{User: o.name}, begun); err != nil {
		return "", err
	}
	root := o.root
	if root == nil {
		root = locallogin.Root(o.password, begun.GetSalt())
	}
	secret := bytes.Repeat([]byte{byte(rand.IntN(256))}, 32)
	hash, kept := sha256.Sum256(secret), sha256.Sum256(o.device)
	c := locallogin.Claim{ZoneID: begun.GetZoneId(), User: o.name, Challenge: begun.GetChallenge(), Device: locallogin.Device(kept[:], zoneID), SecretHash: hash[:]}
	r := &apiv1.LogInLocallyRequest{User: o.name, Challenge: c.Challenge, Signature: c.Sign(z.key(root)), Device: c.Device, SecretHash: c.SecretHash}
	change(r)
	reply := &apiv1.LogInLocallyResponse{}
	if err := z.call("", apiv1.SessionService_LogInLocally_FullMethodName, r, reply); err != nil {
		return "", err
	}
	id := uuid.MustParse(reply.GetSession().GetId())
	return "Bearer " + locallogin.TokenPrefix + base64.RawURLEncoding.EncodeToString(append(id[:], secret...)), nil
}

func asIs(*apiv1.LogInLocallyRequest) {}

func (z *zone) in(o operator) string {
	z.Helper()
	credential, err := z.login(o, asIs)
	if err != nil {
		z.Fatal(err)
	}
	return credential
}

func (z *zone) stop(credential, vm string) (*apiv1.Operation, error) {
	reply := &apiv1.StopVMResponse{}
	err := z.call(credential, apiv1.VMService_StopVM_FullMethodName, &apiv1.StopVMRequest{Vm: vm}, reply)
	return reply.GetOperation(), err
}

// journal is what goes up.
func (z *zone) journal() []*linkv1.JournalEntry {
	z.Helper()
	life, _ := z.store.Incarnation()
	b, err := z.store.JournalSource(z.own).After(z.Context(), &linkv1.JournalPoint{Origin: life.GetId(), Stream: "zone"}, 1000)
	if err != nil {
		z.Fatal(err)
	}
	return b.GetEntries()
}

// log is the zone's own log, as it goes up; each state of it is checked.
func (z *zone) log() (all []*apiv1.AuditEntry) {
	z.Helper()
	var log audit.Growing
	life, _ := z.store.Incarnation()
	for _, j := range z.journal() {
		l := j.GetLocalEntry()
		if l == nil {
			continue
		}
		e, err := audit.ReadLeaf(l.GetLeaf())
		if err != nil || l.GetIndex() != log.Size || e.GetSequence() != fmt.Sprint(log.Size) {
			z.Fatalf("entry %d of the log: %v, %v", log.Size, l, err)
		}
		if err := log.Append(l.GetLeaf()); err != nil {
			z.Fatal(err)
		}
		c, err := audit.OpenLocal(l.GetNote(), l.GetKey())
		if root, _ := log.Root(); err != nil || c.Size != log.Size || c.Root != root || c.Origin != audit.LocalOrigin("naru.test", "business", life.GetId()) {
			z.Fatalf("the log is signed as %+v, %v", c, err)
		}
		all = append(all, e)
	}
	return all
}

func said(all []*apiv1.AuditEntry) string {
	var out []string
	for _, e := range all {
		out = append(out, fmt.Sprintf("%s %s %s", e.GetActor(), e.GetAction(), e.GetOutcome()))
	}
	return strings.Join(out, "; ")
}

func (z *zone) refused(what string, err error, code problem.Code) {
	z.Helper()
	if !problem.Is(err, code) {
		z.Errorf("%s: %v, want %s", what, err, code)
	}
}
