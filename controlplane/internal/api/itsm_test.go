package api_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/controller/notify"
	"github.com/naru-project/naru/controlplane/internal/controller/requests"
	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// itsm is another system of record beside a federation: it asks by its service desk and decides by its change management, each over REST
// with a token of its own, and a webhook tells it what has come of it.
type itsm struct {
	*federation
	desk, change rest
	ann          *apiv1.User
	leader       *requests.Controller
	post         *notify.Controller

	mu     sync.Mutex
	events []told
}

// told is an event as its webhook gets it.
type told struct {
	ID, Type string
	Data     struct {
		About      struct{ Name string }
		Parameters map[string]string
		Results    []struct{ Kind, ID, Name, Zone string }
	}
}

func newITSM(t *testing.T) *itsm {
	f := newFederation(t, 2)
	s := &itsm{federation: f}
	f.Connect(f.Business.GetId(), true)
	f.Roles()
	s.ann = f.User("ann", apiv1.User_PERSON)
	desk, change := f.User("desk", apiv1.User_SERVICE), f.User("change", apiv1.User_SERVICE)
	f.Bind("b-ann", "user", s.ann, apiv1.RoleBinding_PROJECT, "web")
	f.Bind("b-desk", "user", desk, apiv1.RoleBinding_PROJECT, "web")
	f.Bind("b-change", "approver", change, apiv1.RoleBinding_PROJECT, "web")
	s.desk, s.change = f.rest(f.tls(), f.tokenOf(desk)), f.rest(f.tls(), f.tokenOf(change))

	admin := f.asAdmin()
	made := func(path, body string) {
		t.Helper()
		if a := admin.call("POST", path, body); a.StatusCode/100 != 2 {
			t.Fatalf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	made("/v1/approval-policies", `{"name":"by-itsm","enabled":true,"authority":"ITSM","stages":[{"name":"itsm","rule":"ANY","external":true,"eligible":{"users":["change"]}}]}`)
	made("/v1/offerings", `{"name":"web-server","image":"tiny","currency":"KRW","monthly_price":"10000","flavors":[{"flavor":"s1","monthly_price":"5000"}]}`)
	made("/v1/offerings/web-server:publish", `{}`)

	receiver := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		var e told
		body, err := io.ReadAll(q.Body)
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err != nil || q.Header.Get("Webhook-Signature") == "" {
			t.Errorf("%v: %s", err, body)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}))
	t.Cleanup(receiver.Close)
	ca, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})))
	if err != nil {
		t.Fatal(err)
	}
	made("/v1/notification-channels", fmt.Sprintf(`{"name":"itsm","topics":["request.*"],"webhook":{"url":%q,"ca":%s}}`, receiver.URL, ca))
	made("/v1/notification-channels/itsm:setSecret", `{"secret":"a key of sixteen"}`)

	quiet := slog.New(slog.DiscardHandler)
	s.leader = requests.New(requests.Config{Reader: f.DB, Proposer: f.World, Chooser: f.Chooser, Log: quiet, Now: time.Now})
	s.post = notify.New(notify.Config{Reader: f.DB, Proposer: f.World, Sender: outbound.New("naru.test", outbound.Networks{netip.MustParsePrefix("127.0.0.0/8")}),
		Rights: f.Service, Unseal: f.Unseal, Log: quiet, Now: time.Now})
	return s
}

const twoServers = `{"title":"two web servers","project":"web","zone":"business","reason":"full","intake":"ITSM","external_ref":"INC-12",
 "specification":{"create":{"offering":"web-server","quantity":2,"name_pattern":"web-##"}}}`

// decide says what Hong decided in the other system of a request as it is shown to its change management.
func (s *itsm) decide(as rest, name, verdict, ref string) answer {
	s.Helper()
	var seen struct {
		FrozenHash string `json:"frozen_hash"`
	}
	s.change.call("GET", "/v1/requests/"+name, "").json(s, 200, &seen)
	if hash, err := base64.StdEncoding.DecodeString(seen.FrozenHash); err != nil || len(hash) != 32 {
		s.Fatalf("%q, %v", seen.FrozenHash, err)
	}
	return as.call("POST", "/v1/requests/"+name+":decide", fmt.Sprintf(`{"verdict":%q,"seen_hash":%q,"comment":"seen","external_approver":"Hong","external_ref":%q}`, verdict, seen.FrozenHash, ref))
}

// carryOut has the leader carry out what is approved, and its zone build it.
func (s *itsm) carryOut() {
	s.Helper()
	turn := func() {
		s.Helper()
		if err := s.leader.Turn(s.Context()); err != nil {
			s.Fatal(err)
		}
	}
	turn()
	var rooms []*apiv1.Reservation
	s.View(func(tx *state.Tx) error {
		for m, err := range tx.Reservations.All(nil) {
			if err != nil {
				return err
			}
			rooms = append(rooms, m)
		}
		return nil
	})
	for _, m := range rooms {
		m.State, m.Reached, m.Left = apiv1.Reservation_HELD, m.GetGeneration(), m.GetQuantity()
		s.Observe(m.GetZoneId(), m)
	}
	for range 3 {
		turn()
	}
	for _, vm := range s.vms() {
		building := false
		s.View(func(tx *state.Tx) error {
			op, err := tx.Operations.Get(vm.GetOperation())
			building = !op.GetDone()
			return err
		})
		if building {
			s.Do(&commandv1.Command{Body: &commandv1.Command_ResolveOperation{ResolveOperation: &commandv1.ResolveOperation{
				OperationId: vm.GetOperation(), Outcome: apiv1.ResolveOperationRequest_SUCCEED, Reason: "usable"}}})
		}
	}
	turn()
}

func (s *itsm) vms() (all []*apiv1.VM) {
	s.Helper()
	s.View(func(tx *state.Tx) error {
		all = nil
		for m, err := range tx.VMs.All(nil) {
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		return nil
	})
	return all
}

// heard sends what is due, and returns what the other system has been told by a topic.
func (s *itsm) heard(topic string) (out []told) {
	s.Helper()
	for range 2 {
		if err := s.post.Address(s.Context()); err != nil {
			s.Fatal(err)
		}
		if err := s.post.Send(s.Context()); err != nil {
			s.Fatal(err)
		}
		s.post.Wait()
	}
	// A channel has four under way at once.
	for left := 1; left > 0; {
		if err := s.post.Send(s.Context()); err != nil {
			s.Fatal(err)
		}
		s.post.Wait()
		left = 0
		s.View(func(tx *state.Tx) error {
			for d, err := range tx.Deliveries.All(nil) {
				if err != nil {
					return err
				}
				if d.GetState() == apiv1.Delivery_WAITING && d.GetAttempts() == 0 {
					left++
				}
			}
			return nil
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Type == "dev.naru."+topic {
			out = append(out, e)
		}
	}
	return out
}

// result holds that the other system was told once what has come of a request, by its numbers.
func (s *itsm) result(name string, numbers map[string]string) {
	s.Helper()
	done := s.heard("request.done")
	if len(done) != 1 || done[0].Data.About.Name != name || len(done[0].Data.Results) != 2 {
		s.Fatalf("it was told %+v", done)
	}
	for key, want := range numbers {
		if got := done[0].Data.Parameters[key]; got != want {
			s.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	vms := s.vms()
	for _, r := range done[0].Data.Results {
		if r.Kind != "vm" || r.Zone != "business" || !slices.ContainsFunc(vms, func(vm *apiv1.VM) bool { return vm.GetId() == r.ID && vm.GetName() == r.Name }) {
			s.Errorf("it was told of %+v, and there are %v", r, vms)
		}
	}
}

// TestWhatIsAskedForHereAndApprovedInAnotherSystemIsMadeAndTold is the first flow: the portal asks, the other system approves, and hears
// what was made.
func TestWhatIsAskedForHereAndApprovedInAnotherSystemIsMadeAndTold(t *testing.T) {
	s := newITSM(t)
	ask := &apiv1.Request{Project: "web", Zone: "business", Reason: "full", Intake: apiv1.Intake_PORTAL, Specification: &apiv1.RequestSpecification{
		What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web-server", Quantity: 2, NamePattern: "web-##"}}}}
	r, err := s.As(s.ann).Requests.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask, Submit: true})
	if err != nil {
		t.Fatal(err)
	}
	if m := r.GetRequest(); m.GetAuthority() != apiv1.Authority_ITSM || !slices.Equal(m.GetStages()[0].GetApprovers(), []string{"change"}) {
		t.Errorf("%v", m)
	}
	waits := s.heard("request.waiting")
	if len(waits) != 1 || waits[0].Data.About.Name != "r-1" || waits[0].Data.Parameters["stage"] != "itsm" || waits[0].Data.Parameters["intake"] != "portal" {
		t.Fatalf("%+v", waits)
	}
	var queue struct{ Requests []struct{ Name string } }
	s.change.call("GET", "/v1/requests:approvals", "").json(t, 200, &queue)
	if len(queue.Requests) != 1 {
		t.Errorf("%v", queue)
	}
	s.desk.call("POST", "/v1/requests/r-1:decide", `{"verdict":"APPROVE","seen_hash":"`+base64.StdEncoding.EncodeToString(r.GetRequest().GetFrozenHash())+`","external_approver":"Hong","external_ref":"CHG-7"}`).
		problem(t, 403, problem.Forbidden, "desk does not have the permission request.decide")
	var decided struct {
		Approval  string
		Decisions []struct {
			Actor            string
			ExternalApprover string `json:"external_approver"`
			ExternalRef      string `json:"external_ref"`
		}
	}
	s.decide(s.change, "r-1", "APPROVE", "CHG-7").json(t, 200, &decided)
	if d := decided.Decisions; decided.Approval != "APPROVED" || len(d) != 1 || d[0].Actor != "change" || d[0].ExternalApprover != "Hong" || d[0].ExternalRef != "CHG-7" {
		t.Errorf("%+v", decided)
	}
	s.decide(s.change, "r-1", "APPROVE", "CHG-7").problem(t, 409, problem.WrongState, "cannot be decided on")
	s.carryOut()
	s.result("r-1", map[string]string{"intake": "portal", "decision_ref": "CHG-7", "external_ref": ""})
}

// TestWhatAnotherSystemAsksForAndApprovesIsMadeOnceAndTold is the second flow: it asks, approves, and hears what was made, however often it
// says the same.
func TestWhatAnotherSystemAsksForAndApprovesIsMadeOnceAndTold(t *testing.T) {
	s := newITSM(t)
	for range 2 {
		var m struct{ Name, Approval, Intake, Authority string }
		s.desk.call("POST", "/v1/requests?submit=true", twoServers).json(t, 200, &m)
		if m.Name != "r-1" || m.Approval != "SUBMITTED" || m.Intake != "ITSM" || m.Authority != "ITSM" {
			t.Fatalf("%+v", m)
		}
	}
	s.desk.call("POST", "/v1/requests?submit=true", strings.Replace(twoServers, `"quantity":2`, `"quantity":3`, 1)).problem(t, 409, problem.Contradiction, "INC-12")
	s.decide(s.change, "r-1", "RETURN", "CHG-7").json(t, 200, &struct{}{})
	var m struct {
		Name, Approval string
		Round          int
	}
	s.desk.call("POST", "/v1/requests?submit=true", twoServers).json(t, 200, &m)
	if m.Approval != "RETURNED" {
		t.Errorf("what was returned was submitted as it is: %+v", m)
	}
	corrected := strings.Replace(twoServers, `"reason":"full"`, `"reason":"cost centre 7"`, 1)
	for range 2 {
		s.desk.call("POST", "/v1/requests?submit=true", corrected).json(t, 200, &m)
		if m.Name != "r-1" || m.Approval != "SUBMITTED" || m.Round != 2 {
			t.Errorf("%+v", m)
		}
	}
	s.decide(s.desk, "r-1", "APPROVE", "CHG-8").problem(t, 403, problem.Forbidden, "nobody decides on their own")
	s.decide(s.change, "r-1", "APPROVE", "CHG-8").json(t, 200, &struct{}{})
	s.carryOut()
	s.desk.call("POST", "/v1/requests?submit=true", corrected).json(t, 200, &m)
	s.carryOut()
	if n := len(s.vms()); n != 2 || m.Approval != "APPROVED" {
		t.Errorf("there are %d VMs, and it is %+v", n, m)
	}
	s.result("r-1", map[string]string{"intake": "itsm", "external_ref": "INC-12", "decision_ref": "CHG-8"})
}

// TestAnApprovalOfAnotherSystemThatComesAfterTheCancellationIsRefused, and nothing is made.
func TestAnApprovalOfAnotherSystemThatComesAfterTheCancellationIsRefused(t *testing.T) {
	s := newITSM(t)
	s.desk.call("POST", "/v1/requests?submit=true", twoServers).json(t, 200, &struct{}{})
	s.desk.call("POST", "/v1/requests/r-1:withdraw", `{"reason":"INC-12 was closed"}`).json(t, 200, &struct{}{})
	s.decide(s.change, "r-1", "APPROVE", "CHG-7").problem(t, 409, problem.WrongState, "cancelled")
	s.carryOut()
	if cancelled := s.heard("request.cancelled"); len(s.vms()) != 0 || len(cancelled) != 1 || cancelled[0].Data.Parameters["external_ref"] != "INC-12" {
		t.Errorf("%d VMs, and it was told %+v", len(s.vms()), cancelled)
	}
}

// TestOnlyAServiceSaysThatAnotherSystemAsks.
func TestOnlyAServiceSaysThatAnotherSystemAsks(t *testing.T) {
	s := newITSM(t)
	ask := &apiv1.Request{Project: "web", Zone: "business", Intake: apiv1.Intake_ITSM, ExternalRef: "INC-12", Specification: &apiv1.RequestSpecification{
		What: &apiv1.RequestSpecification_Create{Create: &apiv1.CreateVMs{Offering: "web-server", NamePattern: "web"}}}}
	ann := s.As(s.ann).Requests
	if _, err := ann.CreateRequest(t.Context(), &apiv1.CreateRequestRequest{Request: ask}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("%v", err)
	}
	if _, err := ann.PreviewRequest(t.Context(), &apiv1.PreviewRequestRequest{Request: ask}); !problem.Is(err, problem.Forbidden) {
		t.Errorf("%v", err)
	}
	s.desk.call("POST", "/v1/requests", strings.Replace(twoServers, `"external_ref":"INC-12",`, "", 1)).problem(t, 400, problem.Invalid, "has a number there")
}

// TestAServiceIsHeldToItsPolicyItsRightsAndItsToken, through the whole of the API.
func TestAServiceIsHeldToItsPolicyItsRightsAndItsToken(t *testing.T) {
	s := newITSM(t)
	s.desk.call("POST", "/v1/requests?submit=true", twoServers).json(t, 200, &struct{}{})
	other := s.token("elsewhere", "db", "")
	narrow, err := s.Admin().AccessTokens.CreateAccessToken(t.Context(), &apiv1.CreateAccessTokenRequest{AccessToken: &apiv1.AccessToken{
		Name: "narrow", User: "change", Project: "db", ExpiresAt: s.expires()}})
	if err != nil {
		t.Fatal(err)
	}
	for about, token := range map[string]string{"a token of another project": other, "the service's, in another project": narrow.GetSecret()} {
		if a := s.decide(s.rest(s.tls(), token), "r-1", "APPROVE", "CHG-7"); a.StatusCode != 403 && a.StatusCode != 404 {
			t.Errorf("%s: %d %s", about, a.StatusCode, a.body)
		}
	}
	s.Unbind("b-change")
	if a := s.desk.call("POST", "/v1/requests?submit=true", strings.NewReplacer("INC-12", "INC-13", "web-##", "api-##").Replace(twoServers)); a.StatusCode != 409 || !strings.Contains(string(a.body), "nobody could give") {
		t.Errorf("nobody may decide on it, and it was taken: %d %s", a.StatusCode, a.body)
	}
	if err := s.leader.Turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	var m struct{ Stages []struct{ Stuck string } }
	s.desk.call("GET", "/v1/requests/r-1", "").json(t, 200, &m)
	if m.Stages[0].Stuck == "" {
		t.Errorf("nobody may decide any more, and that is not shown: %+v", m)
	}
	if stuck := s.heard("request.stuck"); len(stuck) != 1 {
		t.Errorf("%+v", stuck)
	}
}

func (s *itsm) expires() *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(time.Hour)) }

// TestAChannelIsToldNoNamesThatAZoneDoesNotLetOut: the ids stay, so that the other system can tell what it is.
func TestAChannelIsToldNoNamesThatAZoneDoesNotLetOut(t *testing.T) {
	s := newITSM(t)
	s.desk.call("POST", "/v1/requests?submit=true", twoServers).json(t, 200, &struct{}{})
	s.decide(s.change, "r-1", "APPROVE", "CHG-7").json(t, 200, &struct{}{})
	s.carryOut()
	s.asAdmin().call("PATCH", "/v1/zones/business", `{"policy":{"disclosures":[{"direction":"OUT"}]}}`).json(t, 200, &struct{}{})
	done := s.heard("request.done")
	if len(done) != 1 || len(done[0].Data.Results) != 2 || done[0].Data.Parameters["external_ref"] != "INC-12" {
		t.Fatalf("%+v", done)
	}
	for _, r := range done[0].Data.Results {
		if r.Name != "" || r.ID == "" {
			t.Errorf("%+v", r)
		}
	}
}
