package desk

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

// TestAnOperatorLogsInAndSwitchesAVMOff while the zone is cut off, and each step is a line of the zone's own log.
func TestAnOperatorLogsInAndSwitchesAVMOff(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(*linkv1.Operator) {})
	options := &apiv1.GetLoginOptionsResponse{}
	if err := z.call("", apiv1.SessionService_GetLoginOptions_FullMethodName, &apiv1.GetLoginOptionsRequest{}, options); err != nil || !options.GetCutOff() || options.GetZone() != "business" {
		t.Fatalf("%v, %v", options, err)
	}
	credential := z.in(kim)
	op, err := z.stop(credential, "name-vm-1")
	if err != nil || op.GetDone() || op.GetKind() != "vm.stop" {
		t.Fatalf("%v, %v", op, err)
	}
	wanted, err := z.store.Get(t.Context(), etcdstore.Desired, "vm", "vm-1")
	if err != nil {
		t.Fatal(err)
	}
	vm := wanted.Message.(*apiv1.VM)
	o := vm.GetOverride()
	if vm.GetDesiredState() != apiv1.VM_STOPPED || vm.GetGeneration().GetOverride() != 1 || vm.GetOperation() != "" || o.GetUser() != "kim" || o.GetId() != op.GetId() ||
		o.GetInsteadOf() != apiv1.VM_RUNNING || o.GetBasedOn().GetOverride() != 0 {
		t.Errorf("the zone holds to %v", vm)
	}
	var told []*linkv1.VMOverride
	for _, e := range z.journal() {
		if e.GetVmOverride() != nil {
			told = append(told, e.GetVmOverride())
		}
	}
	if len(told) != 1 || !proto.Equal(told[0].GetOverride(), o) {
		t.Errorf("the control plane is told %v", told)
	}
	z.shown()
	read := &apiv1.GetOperationResponse{}
	asked := func() *apiv1.Operation {
		t.Helper()
		if err := z.call(credential, apiv1.OperationService_GetOperation_FullMethodName, &apiv1.GetOperationRequest{Operation: op.GetId()}, read); err != nil {
			t.Fatal(err)
		}
		return read.GetOperation()
	}
	if asked().GetDone() {
		t.Error("it is done before the VM is off")
	}
	tx := z.store.Begin(z.own)
	tx.PutObserved(&apiv1.VM{Id: "vm-1", State: apiv1.VM_STOPPED, Reached: vm.GetGeneration()})
	if _, err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	z.shown()
	if !asked().GetDone() || asked().GetError() != nil {
		t.Errorf("the VM is off, and %v", read.GetOperation())
	}
	if again, err := z.stop(credential, "vm-1"); err != nil || !again.GetDone() {
		t.Errorf("the same once more: %v, %v", again, err)
	}
	started := &apiv1.StartVMResponse{}
	if err := z.call(credential, apiv1.VMService_StartVM_FullMethodName, &apiv1.StartVMRequest{Vm: "vm-1", Project: "web"}, started); err != nil {
		t.Fatal(err)
	}
	wanted, _ = z.store.Get(t.Context(), etcdstore.Desired, "vm", "vm-1")
	if vm := wanted.Message.(*apiv1.VM); vm.GetGeneration().GetOverride() != 2 || !proto.Equal(vm.GetOverride().GetBasedOn(), o.GetBasedOn()) || vm.GetOverride().GetInsteadOf() != apiv1.VM_RUNNING {
		t.Errorf("the second override is upon %v", vm.GetOverride())
	}
	if err := z.call(credential, apiv1.SessionService_LogOut_FullMethodName, &apiv1.LogOutRequest{}, &apiv1.LogOutResponse{}); err != nil {
		t.Fatal(err)
	}
	_, err = z.stop(credential, "vm-1")
	z.refused("after the logout", err, problem.TokenInvalid)
	if got, want := said(z.log()), "user:kim session.log-in DONE; user:kim vm.stop DONE; user:kim vm.start DONE; user:kim session.log-out DONE"; got != want {
		t.Errorf("the log says %s, want %s", got, want)
	}
}

// TestAnOperatorStartsAVMThatFellThoughItIsWantedToRun: what is wanted is not what is.
func TestAnOperatorStartsAVMThatFellThoughItIsWantedToRun(t *testing.T) {
	z := newZone(t)
	credential := z.in(z.operator("kim", func(*linkv1.Operator) {}))
	is := func(state apiv1.VM_State) {
		t.Helper()
		wanted, err := z.store.Get(t.Context(), etcdstore.Desired, "vm", "vm-1")
		if err != nil {
			t.Fatal(err)
		}
		tx := z.store.Begin(z.own)
		tx.PutObserved(&apiv1.VM{Id: "vm-1", State: state, Reached: wanted.Message.(*apiv1.VM).GetGeneration()})
		if _, err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		z.shown()
	}
	start := func() *apiv1.Operation {
		t.Helper()
		r := &apiv1.StartVMResponse{}
		if err := z.call(credential, apiv1.VMService_StartVM_FullMethodName, &apiv1.StartVMRequest{Vm: "vm-1", Project: "web"}, r); err != nil {
			t.Fatal(err)
		}
		return r.GetOperation()
	}
	is(apiv1.VM_RUNNING)
	if !start().GetDone() {
		t.Error("a VM that runs is started")
	}
	is(apiv1.VM_STOPPED)
	if start().GetDone() {
		t.Error("a VM that fell is said to be started")
	}
	if !start().GetDone() {
		t.Error("it is started once more while that is under way")
	}
	is(apiv1.VM_RUNNING)
	if !start().GetDone() {
		t.Error("it runs again, and is started")
	}
}

// TestWhoDoesNotShowThatTheyAreAnOperatorIsNotLetIn, and is told the same whoever they say they are.
func TestWhoDoesNotShowThatTheyAreAnOperatorIsNotLetIn(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(*linkv1.Operator) {})
	z.operator("former", func(o *linkv1.Operator) { o.Until = timestamppb.New(z.now.Add(-time.Minute)) })
	z.operator("careful", func(o *linkv1.Operator) { o.DeviceNeeded = true })
	other := operator{name: "careful", root: locallogin.Root("password of careful", []byte("salt of sixteen careful")[:16]), device: []byte("another machine")}
	stolen := kim
	stolen.root = locallogin.Root("a guess", []byte("salt of sixteen kim")[:16])
	var texts []string
	for what, o := range map[string]operator{"a wrong password": stolen, "nobody": {name: "nobody", password: "x"}, "whose role has ended": {name: "former", password: "password of former"}} {
		_, err := z.login(o, asIs)
		z.refused(what, err, problem.Unauthenticated)
		texts = append(texts, fmt.Sprint(err))
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("the answers differ: %q", texts)
	}
	_, err := z.login(other, asIs)
	z.refused("with an authenticator, and from a machine that is not known", err, problem.Forbidden)
	for what, change := range map[string]func(*apiv1.LogInLocallyRequest){
		"another secret":       func(r *apiv1.LogInLocallyRequest) { r.SecretHash = bytes.Repeat([]byte{9}, 32) },
		"another client":       func(r *apiv1.LogInLocallyRequest) { r.Client = "mallory" },
		"a device left out":    func(r *apiv1.LogInLocallyRequest) { r.Device = nil },
		"a signature of noise": func(r *apiv1.LogInLocallyRequest) { r.Signature = bytes.Repeat([]byte{1}, 64) },
	} {
		_, err := z.login(kim, change)
		z.refused(what, err, problem.Unauthenticated)
		z.now = z.now.Add(time.Hour)
	}
	for what, change := range map[string]func(*apiv1.LogInLocallyRequest){
		"another user's challenge": func(r *apiv1.LogInLocallyRequest) { r.User = "lee" },
		"a challenge of its own":   func(r *apiv1.LogInLocallyRequest) { r.Challenge = bytes.Repeat([]byte{1}, len(r.GetChallenge())) },
		"an old challenge":         func(*apiv1.LogInLocallyRequest) { z.now = z.now.Add(2 * time.Minute) },
	} {
		_, err := z.login(kim, change)
		z.refused(what, err, problem.TokenExpired)
	}
	z.now = z.now.Add(time.Hour)
	careful := other
	careful.device = bytes.Repeat([]byte{3}, 32)
	z.in(careful)
	for _, e := range z.log() {
		if strings.Contains(e.String(), "nobody\"") && e.GetActor() != "nobody" || strings.Contains(e.String(), "password") {
			t.Errorf("the log has what was typed: %v", e)
		}
	}
}

func TestASaltIsGivenForEveryNameAndStaysTheSame(t *testing.T) {
	z := newZone(t)
	z.operator("kim", func(*linkv1.Operator) {})
	salts := map[string][]byte{}
	for range 2 {
		for _, name := range []string{"kim", "nobody", "nobody-else"} {
			r := &apiv1.BeginLocalLoginResponse{}
			if err := z.call("", apiv1.SessionService_BeginLocalLogin_FullMethodName, &apiv1.BeginLocalLoginRequest{User: name}, r); err != nil || len(r.GetSalt()) != locallogin.SaltSize {
				t.Fatalf("%s: %v, %v", name, r, err)
			}
			if was := salts[name]; was != nil && !bytes.Equal(was, r.GetSalt()) {
				t.Errorf("the salt of %s changes: who asks twice learns that they are nobody", name)
			}
			salts[name] = r.GetSalt()
		}
	}
}

func TestWhoGuessesWaitsEverLongerAndLocksNobodyOut(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(*linkv1.Operator) {})
	guess := operator{name: "kim", root: bytes.Repeat([]byte{1}, 32), device: []byte("mallory")}
	var err error
	for range 20 {
		_, err = z.login(guess, asIs)
	}
	z.refused("after twenty guesses", err, problem.TooMany)
	z.in(kim) // from a machine that is known
	var refused []string
	for _, e := range z.log() {
		if e.GetOutcome() == apiv1.AuditEntry_REFUSED {
			refused = append(refused, e.GetActor()+" "+e.GetAction()+" "+e.GetProblemCode())
		}
	}
	if want := []string{"user:kim session.log-in UNAUTHENTICATED", "user:kim session.log-in TOO_MANY"}; !slices.Equal(refused, want) {
		t.Errorf("the log has the refusals %q within a moment", refused)
	}
}

// TestWhoGuessesKeepsNoOperatorOut, from a machine that was never seen, at another address.
func TestWhoGuessesKeepsNoOperatorOut(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(*linkv1.Operator) {})
	guess := operator{name: "kim", root: bytes.Repeat([]byte{1}, 32), device: []byte("mallory")}
	z.from = "10.91.0.66/32"
	for range 20 {
		_, _ = z.login(guess, asIs)
	}
	kim.device = []byte("another machine")
	began := z.now
	for ; ; z.now = z.now.Add(10 * time.Second) {
		z.from = "10.91.0.66/32"
		_, _ = z.login(guess, asIs)
		z.from = "10.91.0.5/32"
		_, err := z.login(kim, asIs)
		if err == nil {
			break
		}
		if z.now.Sub(began) > 7*time.Minute {
			t.Fatalf("from a machine that was never seen: %v", err)
		}
	}
}

// TestWhatWasRefusedIsCountedAndWrittenInTheEnd, apart for each operator, and for those who are nobody.
func TestWhatWasRefusedIsCountedAndWrittenInTheEnd(t *testing.T) {
	z := newZone(t)
	z.operator("kim", func(*linkv1.Operator) {})
	for i := range 3 {
		z.login(operator{name: "kim", root: bytes.Repeat([]byte{1}, 32)}, asIs)
		z.login(operator{name: fmt.Sprint("nobody-", i), password: "x", root: bytes.Repeat([]byte{1}, 32)}, asIs)
	}
	look := func() string {
		t.Helper()
		if err := z.Look(t.Context(), z.own, false); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range z.log() {
			out = append(out, fmt.Sprintf("%s %d", e.GetActor(), e.GetCount()))
		}
		return strings.Join(out, "; ")
	}
	if got := look(); got != "user:kim 1; nobody 1" {
		t.Errorf("at once the log says %s", got)
	}
	z.now = z.now.Add(refusedEvery)
	if got := look(); got != "user:kim 1; nobody 1; user:kim 2" {
		t.Errorf("after a minute the log says %s", got)
	}
	z.now = z.now.Add(nobodyEvery)
	if got := look(); got != "user:kim 1; nobody 1; user:kim 2; nobody 2" {
		t.Errorf("in the end the log says %s", got)
	}
}

// TestAnOverrideThatIsNotAnsweredWithinAMinuteIsGivenUp once the control plane has had it.
func TestAnOverrideThatIsNotAnsweredWithinAMinuteIsGivenUp(t *testing.T) {
	z := newZone(t)
	credential := z.in(z.operator("kim", func(*linkv1.Operator) {}))
	if _, err := z.stop(credential, "vm-1"); err != nil {
		t.Fatal(err)
	}
	z.shown()
	look := func(after time.Duration) bool {
		t.Helper()
		z.now = z.now.Add(after)
		if err := z.Look(t.Context(), z.own, true); err != nil {
			t.Fatal(err)
		}
		c, err := z.store.Get(t.Context(), etcdstore.Desired, "vm", "vm-1")
		if err != nil {
			t.Fatal(err)
		}
		return c.Message.(*apiv1.VM).GetOverride().GetGivenUp()
	}
	if look(0) || look(time.Hour) {
		t.Error("it is given up before the control plane has had it")
	}
	entries := z.journal()
	life, _ := z.store.Incarnation()
	if err := z.store.JournalSource(z.own).Acknowledged(t.Context(), &linkv1.JournalAck{Points: []*linkv1.JournalPoint{
		{Origin: life.GetId(), Stream: "zone", Sequence: entries[len(entries)-1].GetSequence()}}}); err != nil {
		t.Fatal(err)
	}
	if look(0) || look(answerTime-time.Second) {
		t.Error("the control plane has not been given the time to answer")
	}
	if !look(time.Second) {
		t.Error("it is held to for ever")
	}
}

// TestASessionEndsWithWhatItRestsOn: the role, the password, its time, and the zone's being cut off.
func TestASessionEndsWithWhatItRestsOn(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(o *linkv1.Operator) { o.Until = timestamppb.New(z.now.Add(time.Hour)) })
	credential := z.in(kim)
	forged := credential[:len(credential)-4] + "AAAA"
	_, err := z.stop(forged, "vm-1")
	z.refused("another secret", err, problem.TokenInvalid)
	_, err = z.stop("Bearer "+locallogin.TokenPrefix+"x", "vm-1")
	z.refused("no token at all", err, problem.TokenInvalid)
	z.now = z.now.Add(time.Hour)
	_, err = z.stop(credential, "vm-1")
	z.refused("after the role's end", err, problem.TokenExpired)
	lee := z.operator("lee", func(*linkv1.Operator) {})
	credential = z.in(lee)
	z.operator("lee", func(o *linkv1.Operator) {
		o.PublicKey = z.key(bytes.Repeat([]byte{1}, 32)).Public().(ed25519.PublicKey)
	})
	_, err = z.stop(credential, "vm-1")
	z.refused("after the password was changed", err, problem.TokenExpired)
	park := z.operator("park", func(*linkv1.Operator) {})
	credential = z.in(park)
	z.send(&linkv1.Object{Noun: &linkv1.Object_Tombstone{Tombstone: &linkv1.Tombstone{
		Noun: &apiv1.Reference{Kind: "local-operator", Id: "u-park"}, Generation: &apiv1.Generation{Epoch: 1, Index: z.revision + 1}}}})
	_, err = z.stop(credential, "vm-1")
	z.refused("who is no operator any more", err, problem.TokenExpired)
	z.since = z.now.Add(-time.Second)
	_, err = z.login(kim, asIs)
	z.refused("a moment after the link went down", err, problem.LinkDown)
}

func TestAnOperatorHasThirtyTwoSessionsAndWhatHasEndedGoes(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(*linkv1.Operator) {})
	first := z.in(kim)
	z.now = z.now.Add(time.Second)
	for range maxSessions {
		z.in(kim)
	}
	_, err := z.stop(first, "vm-1")
	z.refused("the oldest of 33", err, problem.TokenInvalid)
	z.now = z.now.Add(sessionTime)
	last := z.in(kim)
	left, err := z.store.LocalSessions(t.Context())
	if err != nil || len(left) != 1 {
		t.Errorf("%d sessions are kept after all but one have ended, %v", len(left), err)
	}
	if _, err := z.stop(last, "vm-1"); err != nil {
		t.Error(err)
	}
}

func TestNobodyDoesMoreThanTheirRolesAndTheZonesPolicyAllow(t *testing.T) {
	z := newZone(t)
	reader := z.in(z.operator("reader", func(o *linkv1.Operator) { o.Permissions = []string{"vm.read"} }))
	_, err := z.stop(reader, "vm-1")
	z.refused("without the permission", err, problem.Forbidden)
	vms := &apiv1.ListVMsResponse{}
	if err := z.call(reader, apiv1.VMService_ListVMs_FullMethodName, &apiv1.ListVMsRequest{}, vms); err != nil || len(vms.GetVms()) != 1 {
		t.Errorf("%v, %v", vms, err)
	}
	hosts := &apiv1.ListHostsResponse{}
	z.refused("hosts", z.call(reader, apiv1.HostService_ListHosts_FullMethodName, &apiv1.ListHostsRequest{}, hosts), problem.Forbidden)
	z.send(&linkv1.Object{Noun: &linkv1.Object_Host{Host: &apiv1.Host{Id: "h-1", Name: "kvm-1", Cluster: "kvm", Zone: "business", Generation: &apiv1.Generation{Epoch: 1, Index: 99}}}})
	keeper := z.in(z.operator("keeper", func(o *linkv1.Operator) { o.Permissions = []string{"host.read", "cluster.read"} }))
	if err := z.call(keeper, apiv1.HostService_ListHosts_FullMethodName, &apiv1.ListHostsRequest{Cluster: "kvm"}, hosts); err != nil || len(hosts.GetHosts()) != 1 {
		t.Errorf("%v, %v", hosts, err)
	}
	one := &apiv1.GetHostResponse{}
	if err := z.call(keeper, apiv1.HostService_GetHost_FullMethodName, &apiv1.GetHostRequest{Host: "kvm-1"}, one); err != nil || one.GetHost().GetId() != "h-1" {
		t.Errorf("%v, %v", one, err)
	}
	z.send(&linkv1.Object{Noun: &linkv1.Object_Cluster{Cluster: &apiv1.Cluster{Id: "c-1", Name: "kvm", Zone: "business", Freshness: apiv1.Freshness_LIVE, Generation: &apiv1.Generation{Epoch: 1, Index: 99}}}})
	for _, c := range []struct {
		observed *apiv1.Cluster
		want     apiv1.Freshness_Level
	}{{nil, apiv1.Freshness_STALE}, {&apiv1.Cluster{Id: "c-1", Name: "kvm", Owner: "agent-1"}, apiv1.Freshness_LIVE}} {
		if c.observed != nil {
			z.observe(c.observed)
		}
		clusters := &apiv1.ListClustersResponse{}
		if err := z.call(keeper, apiv1.ClusterService_ListClusters_FullMethodName, &apiv1.ListClustersRequest{}, clusters); err != nil || len(clusters.GetClusters()) != 1 || clusters.GetClusters()[0].GetFreshness() != c.want {
			t.Errorf("want %v: %v, %v", c.want, clusters, err)
		}
	}
	z.refused("a host that is not there", z.call(keeper, apiv1.HostService_GetHost_FullMethodName, &apiv1.GetHostRequest{Host: "kvm-2"}, one), problem.NotFound)
	z.refused("zones", z.call(reader, apiv1.ZoneService_ListZones_FullMethodName, &apiv1.ListZonesRequest{}, &apiv1.ListZonesResponse{}), problem.Forbidden)
	kim := z.in(z.operator("kim", func(*linkv1.Operator) {}))
	z.vm("trashed", "web", func(vm *apiv1.VM) { vm.DesiredState = apiv1.VM_TRASHED })
	z.vm("expired", "web", func(vm *apiv1.VM) {
		vm.DesiredState, vm.ExpiresAt = apiv1.VM_STOPPED, timestamppb.New(z.now.Add(-time.Hour))
	})
	z.vm("resized", "web", func(vm *apiv1.VM) { vm.Errand = &apiv1.VM_Errand{Kind: apiv1.VM_Errand_RESIZE} })
	z.vm("twin", "web", func(*apiv1.VM) {})
	z.vm("twin-2", "shop", func(vm *apiv1.VM) { vm.Name = "name-twin" })
	start := func(vm string) error {
		return z.call(kim, apiv1.VMService_StartVM_FullMethodName, &apiv1.StartVMRequest{Vm: vm}, &apiv1.StartVMResponse{})
	}
	z.refused("a VM in the trash", start("trashed"), problem.WrongState)
	z.refused("a VM whose lease has ended", start("expired"), problem.WrongState)
	_, err = z.stop(kim, "resized")
	z.refused("a VM that is worked on", err, problem.WrongState)
	_, err = z.stop(kim, "name-twin")
	z.refused("a name that two have", err, problem.Invalid)
	_, err = z.stop(kim, "none")
	z.refused("a name that none has", err, problem.NotFound)
	z.refused("what only the control plane does", z.call(kim, apiv1.VMService_CreateVM_FullMethodName, &apiv1.CreateVMRequest{}, &apiv1.CreateVMResponse{}), problem.ZoneUnavailable)
	z.send(&linkv1.Object{Noun: &linkv1.Object_Zone{Zone: &apiv1.Zone{Id: zoneID, Name: "business", Policy: &apiv1.ZonePolicy{Methods: []string{"VMService/ListVMs", "SessionService/*"}}}}})
	_, err = z.stop(kim, "vm-1")
	z.refused("what the zone's policy does not let its edge call", err, problem.Forbidden)
	if err := z.call(kim, apiv1.VMService_ListVMs_FullMethodName, &apiv1.ListVMsRequest{}, vms); err != nil {
		t.Errorf("what it does: %v", err)
	}
}

// TestAnotherAgentGoesOnWithTheLog, and in another life of the store it begins anew.
func TestAnotherAgentGoesOnWithTheLog(t *testing.T) {
	z := newZone(t)
	kim := z.operator("kim", func(*linkv1.Operator) {})
	credential := z.in(kim)
	other := New(z.Desk.Config)
	z.Desk = other
	if _, err := z.stop(credential, "vm-1"); err != nil {
		t.Fatal(err)
	}
	if got, want := said(z.log()), "user:kim session.log-in DONE; user:kim vm.stop DONE"; got != want {
		t.Errorf("the log says %s, want %s", got, want)
	}
	if err := z.store.Renew(t.Context(), "a test"); err != nil {
		t.Fatal(err)
	}
	z.in(kim)
	if got, want := said(z.log()), "user:kim session.log-in DONE"; got != want {
		t.Errorf("the log of the new life says %s, want %s", got, want)
	}
}
