package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

func joinToken(id, role string) *commandv1.Command {
	t := &commandv1.JoinToken{Id: id, Role: role, SealedSecret: []byte("sealed"), ExpiresAt: timestamppb.New(start.Add(time.Minute))}
	if role == "zone" {
		t.ZoneId = "z-business"
	}
	return &commandv1.Command{Body: &commandv1.Command_CreateJoinToken{CreateJoinToken: &commandv1.CreateJoinToken{JoinToken: t}}}
}

func ask(token, agent, key string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_AskToJoin{AskToJoin: &commandv1.AskToJoin{TokenId: token, Agent: agent, Key: []byte(key)}}}
}

func acceptJoin(agent, key string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_AcceptJoin{AcceptJoin: &commandv1.AcceptJoin{ZoneId: "z-business", Agent: agent, Key: []byte(key)}}}
}

func revoke(agent string) *commandv1.Command {
	return &commandv1.Command{Body: &commandv1.Command_Revoke{Revoke: &commandv1.Revoke{ZoneId: "z-business", Agent: agent}}}
}

func (p *plane) members() (all []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		members, err := tx.Members("z-business")
		if err != nil {
			p.Fatal(err)
		}
		for _, m := range members {
			all = append(all, fmt.Sprintf("%s %s accepted=%v revoked=%v", m.GetAgent(), m.GetKey(), m.GetAccepted(), m.GetRevoked()))
		}
	})
	return all
}

func (p *plane) revoked() (names []string) {
	p.Helper()
	p.view(func(tx *state.Tx) {
		var err error
		if names, err = tx.Revoked(); err != nil {
			p.Fatal(err)
		}
	})
	return names
}

func TestAnAgentAsksWithATokenAndIsLetInByAnAdministrator(t *testing.T) {
	p := furnished(t)
	p.accept(joinToken("t1", "zone"))
	p.refuse(problem.Conflict, joinToken("t1", "zone"))
	p.refuse(problem.TokenInvalid, ask("t9", "a", "key-a"))
	p.refuse(problem.Invalid, ask("t1", "", "key-a"))
	p.accept(ask("t1", "a", "key-a"))
	p.refuse(problem.TokenUsed, ask("t1", "a", "key-b"))
	p.accept(ask("t1", "a", "key-a")) // it waits and asks again
	p.refuse(problem.NotFound, acceptJoin("b", "key-a"))
	p.refuse(problem.Conflict, acceptJoin("a", "key-b"))
	if got := fmt.Sprint(p.members()); got != "[a key-a accepted=false revoked=false]" {
		t.Errorf("members %s", got)
	}
	r := p.accept(acceptJoin("a", "key-a"))
	if r.GetOperation().GetKind() != "zone.accept" || p.zone().GetState() != apiv1.Zone_DISCONNECTED {
		t.Errorf("operation %v, zone %v", r.GetOperation(), p.zone())
	}
	p.accept(acceptJoin("a", "key-a"))
	if got := fmt.Sprint(p.members(), p.events()["zone.agent-accepted"]); got != "[a key-a accepted=true revoked=false] 1" {
		t.Errorf("members and events %s", got)
	}
	p.accept(joinToken("t2", "zone"))
	p.refuse(problem.NameTaken, ask("t2", "a", "key-b"))
	p.accept(ask("t2", "b", "key-b"))
}

func TestAnExpiredTokenLetsNobodyNewIn(t *testing.T) {
	p := furnished(t)
	p.accept(joinToken("t1", "zone"))
	p.accept(joinToken("t2", "zone"))
	p.accept(ask("t1", "a", "key-a"))
	p.now = start.Add(2 * time.Minute)
	p.accept(ask("t1", "a", "key-a")) // asked in time, and waits
	p.refuse(problem.TokenExpired, ask("t2", "b", "key-b"))
	p.accept(&commandv1.Command{Body: &commandv1.Command_Prune{Prune: &commandv1.Prune{Before: timestamppb.New(start.Add(time.Hour))}}})
	p.refuse(problem.TokenInvalid, ask("t2", "b", "key-b"))
}

func TestAKeyAsksUnderOneNameHoweverManyItTries(t *testing.T) {
	p := furnished(t)
	p.accept(joinToken("t1", "zone"))
	for i := range 50 {
		p.accept(ask("t1", fmt.Sprint("a", i), "key-a"))
	}
	if got := fmt.Sprint(p.members()); got != "[a49 key-a accepted=false revoked=false]" {
		t.Errorf("members %s", got)
	}
	p.accept(acceptJoin("a49", "key-a"))
	p.refuse(problem.NameTaken, ask("t1", "b", "key-a"))
	if got := fmt.Sprint(p.members()); got != "[a49 key-a accepted=true revoked=false]" {
		t.Errorf("members %s", got)
	}
}

func TestAServersTokenIsGoodForItsKeyUntilItEndsAndNoLonger(t *testing.T) {
	p := furnished(t)
	p.accept(joinToken("t1", "server"))
	p.accept(joinToken("t2", "zone"))
	p.accept(ask("t1", "two", "key"))
	p.accept(ask("t1", "two", "key")) // an answer that was lost
	p.accept(ask("t2", "a", "key-a"))
	p.now = p.now.Add(time.Hour)
	p.refuse(problem.TokenExpired, ask("t1", "two", "key"))
	p.accept(ask("t2", "a", "key-a")) // an agent waits for an administrator
}

func TestAServersTokenMakesNoMember(t *testing.T) {
	p := furnished(t)
	p.accept(joinToken("t1", "server"))
	p.accept(ask("t1", "two", "key"))
	p.refuse(problem.TokenUsed, ask("t1", "two", "other"))
	if got := p.members(); len(got) != 0 {
		t.Errorf("members %v", got)
	}
	p.refuse(problem.Invalid, joinToken("t2", "king"))
}

func TestP12WhatIsRevokedNeverComesBack(t *testing.T) {
	p := furnished(t)
	for _, agent := range []string{"a", "b"} {
		p.accept(joinToken("t-"+agent, "zone"))
		p.accept(ask("t-"+agent, agent, "key-"+agent))
		p.accept(acceptJoin(agent, "key-"+agent))
	}
	p.accept(session(1, true))
	p.refuse(problem.NotFound, revoke("c"))
	p.accept(revoke("a"))
	if got := fmt.Sprint(p.revoked()); got != "[z-business/a]" || p.zone().GetState() != apiv1.Zone_ONLINE {
		t.Errorf("revoked %s, zone %v", got, p.zone().GetState())
	}
	p.accept(joinToken("t3", "zone"))
	p.refuse(problem.Revoked, ask("t3", "a", "new-key"))
	p.refuse(problem.Revoked, acceptJoin("a", "key-a"))
	p.accept(revoke(""))
	if got := fmt.Sprint(p.revoked(), p.members()); got != "[z-business z-business/a] [a key-a accepted=false revoked=true b key-b accepted=false revoked=true]" {
		t.Errorf("revoked %s", got)
	}
	p.refuse(problem.Revoked, ask("t3", "c", "key-c"))
	p.refuse(problem.WrongState, joinToken("t4", "zone"))
	if p.zone().GetState() != apiv1.Zone_RETIRED {
		t.Errorf("zone %v", p.zone())
	}
}

func TestADeletedZonesCertificatesAreRefused(t *testing.T) {
	p := bootstrapped(t)
	p.accept(createZone("business"))
	p.accept(joinToken("t1", "zone"))
	p.accept(ask("t1", "a", "key-a"))
	p.accept(deletion("zone", "z-business", ""))
	if got := fmt.Sprint(p.revoked(), p.members()); got != "[z-business] []" {
		t.Errorf("revoked and members %s", got)
	}
	p.refuse(problem.Revoked, ask("t1", "a", "key-a"))
}
