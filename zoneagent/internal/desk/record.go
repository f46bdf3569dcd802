package desk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

const (
	// refusedEvery is how often refusals that are alike have a line: those between are counted in the next one, so that nobody fills the
	// log by knocking. Whoever is nobody can knock as often as they like.
	refusedEvery = time.Minute
	nobodyEvery  = 10 * time.Minute
)

// refusal is what refusals that are alike have in common.
type refusal struct{ actor, action, code string }

func (r refusal) every() time.Duration {
	if r.actor == nobody {
		return nobodyEvery
	}
	return refusedEvery
}

// nobody is who stands in the log for a name that is no operator's: it may be a password that was typed into the wrong field.
const nobody = "nobody"

// refusals are those that are alike.
type refusals struct {
	since time.Time         // of the last line
	last  *apiv1.AuditEntry // of those that have no line yet, with their number
}

// write has something done together with the line of the log that says so: no line, no effect.
func (d *Desk) write(ctx context.Context, own *etcdstore.Ownership, e *apiv1.AuditEntry, do func(*etcdstore.Tx)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writeLocked(ctx, own, e, do)
}

func (d *Desk) writeLocked(ctx context.Context, own *etcdstore.Ownership, e *apiv1.AuditEntry, do func(*etcdstore.Tx)) error {
	life, _ := d.Store.Incarnation()
	if d.own != own || d.grown == nil || d.grown.GetIncarnation() != life.GetId() {
		grown, err := d.readLog(ctx, life.GetId())
		if err != nil {
			return err
		}
		d.own, d.grown = own, grown
	}
	now := d.Now()
	log := audit.Growing{Size: d.grown.GetSize(), Hashes: d.grown.GetHashes()}
	e.Sequence, e.Time = fmt.Sprint(log.Size), timestamppb.New(now)
	leaf, err := audit.Leaf(e)
	if err != nil {
		return err
	}
	if err := log.Append(leaf); err != nil {
		return err
	}
	root, err := log.Root()
	if err != nil {
		return err
	}
	zone := e.GetZone()
	note, err := audit.SignLocal(audit.Checkpoint{
		Origin: audit.LocalOrigin(d.Federation, zone, life.GetId()), Size: log.Size, Root: root, Time: now.UTC().Truncate(time.Second),
	}, d.Seed)
	if err != nil {
		return err
	}
	grown := &zonev1.LocalLog{Incarnation: life.GetId(), Size: log.Size, Hashes: log.Hashes}
	tx := d.Store.Begin(own)
	tx.ReadIn(life.GetId())
	do(tx)
	tx.PutLocalLog(grown)
	tx.Journal(&linkv1.JournalEntry{Time: e.GetTime(), Body: &linkv1.JournalEntry_LocalEntry{LocalEntry: &linkv1.LocalEntry{
		Index: log.Size - 1, Leaf: leaf, Note: note, Key: audit.WitnessKey(audit.WitnessName(d.Federation, zone), d.Seed),
	}}})
	if _, err := tx.Commit(ctx); err != nil {
		d.grown = nil // it may have been written
		return problem.Newf(problem.Unavailable, "Look what has become of it, and try again.", "the zone's store did not say that it took this: %w", err)
	}
	d.grown = grown
	return nil
}

// readLog reads how far the log has grown; in another life of the store it begins anew.
func (d *Desk) readLog(ctx context.Context, incarnation string) (*zonev1.LocalLog, error) {
	c, err := d.Store.Get(ctx, etcdstore.LocalLog, "", "")
	if missing(err) {
		return &zonev1.LocalLog{Incarnation: incarnation}, nil
	}
	if err != nil {
		return nil, err
	}
	if l := c.Message.(*zonev1.LocalLog); l.GetIncarnation() == incarnation {
		return l, nil
	}
	return &zonev1.LocalLog{Incarnation: incarnation}, nil
}

// refuse writes down that something was refused, and returns why.
func (d *Desk) refuse(ctx context.Context, who *person, action string, vm *apiv1.VM, why error) error {
	e := who.entry(action, vm)
	e.Outcome, e.ProblemCode, e.Count = apiv1.AuditEntry_REFUSED, codeOf(why), 1
	if who.operator == nil {
		e.Actor, e.ActorId = nobody, ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := refusal{e.GetActor(), action, e.GetProblemCode()}
	r := d.refused[key]
	if r == nil {
		r = &refusals{}
		d.refused[key] = r
	}
	if r.last != nil {
		e.Count += r.last.GetCount()
	}
	if now := d.Now(); now.Sub(r.since) < key.every() && !now.Before(r.since) {
		r.last = e
		return why
	}
	if err := d.writeLocked(ctx, who.own, e, func(*etcdstore.Tx) {}); err != nil {
		return err
	}
	r.since, r.last = d.Now(), nil
	return why
}

// flush writes what was refused and has no line yet, once its time has come.
func (d *Desk) flush(ctx context.Context, own *etcdstore.Ownership) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, r := range d.refused {
		switch now := d.Now(); {
		case now.Sub(r.since) < key.every() && !now.Before(r.since):
		case r.last == nil:
			delete(d.refused, key)
		default:
			if err := d.writeLocked(ctx, own, r.last, func(*etcdstore.Tx) {}); err != nil {
				return err
			}
			r.since, r.last = now, nil
		}
	}
	return nil
}

func codeOf(why error) string {
	var p *problem.Error
	errors.As(why, &p)
	return p.Problem.GetCode()
}

func digestOf(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
