package outbound

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// receiver is a webhook's, which answers as it is told.
type receiver struct {
	*httptest.Server
	channel *apiv1.NotificationChannel
	events  []map[string]any
	headers []http.Header
	bodies  [][]byte
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	r := &receiver{}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		var event map[string]any
		if err == nil {
			err = json.Unmarshal(body, &event)
		}
		if err != nil {
			t.Error(err)
		}
		r.events, r.headers, r.bodies = append(r.events, event), append(r.headers, q.Header), append(r.bodies, body)
		answer(w, q)
	}))
	t.Cleanup(r.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})
	r.channel = &apiv1.NotificationChannel{Name: "desk", Webhook: &apiv1.Webhook{Url: r.URL + "/naru?room=secret", Ca: string(ca)}}
	return r
}

var waits = Message{ID: "0192-delivery", Recipients: []string{"bob", "cho"}, Notification: &apiv1.Notification{
	Topic: "request.waiting", About: &apiv1.Reference{Kind: "request", Id: "1", Name: "r-1042"}, Project: "web", By: "ann", UserId: "u-1",
	CreatedAt: timestamppb.New(time.Unix(1_800_000_000, 0)), Parameters: []*apiv1.Notification_Parameter{{Key: "stage", Value: "review"}}}}

var keys = [][]byte{[]byte("whsec_" + base64.StdEncoding.EncodeToString([]byte("a key of sixteen"))), []byte("the key before it")}

func (r *receiver) send(t *testing.T, allowed Networks) error {
	return New("naru.test", allowed).Send(t.Context(), r.channel, keys, waits)
}

func TestAWebhookGetsACloudEventThatIsSignedWithEachKeyThatCounts(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if err := r.send(t, here); err != nil {
		t.Fatal(err)
	}
	e, h := r.events[0], r.headers[0]
	for name, want := range map[string]string{"specversion": "1.0", "id": "0192-delivery", "source": "/naru/naru.test", "type": "dev.naru.request.waiting", "subject": "request/1",
		"datacontenttype": "application/json", "time": "2027-01-15T08:00:00Z"} {
		if e[name] != want {
			t.Errorf("%s is %v, not %s", name, e[name], want)
		}
	}
	if got := fmt.Sprint(e["data"]); got != "map[about:map[id:1 kind:request name:r-1042] by:ann parameters:map[stage:review] project:web recipients:[bob cho] topic:request.waiting]" {
		t.Errorf("it says %s", got)
	}
	if h.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" || h.Get("Webhook-Id") != "0192-delivery" {
		t.Errorf("%v", h)
	}
	at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)) > time.Minute {
		t.Errorf("%v, %v", at, err)
	}
	for _, key := range []string{"a key of sixteen", "the key before it"} {
		if want := sign([]byte(key), "0192-delivery", at, r.bodies[0]); !slices.Contains(strings.Fields(h.Get("Webhook-Signature")), want) {
			t.Errorf("%q is not signed with %q", h.Get("Webhook-Signature"), key)
		}
	}
	if forged := sign([]byte("a key of sixteen"), "0192-delivery", at, append(r.bodies[0], ' ')); strings.Contains(h.Get("Webhook-Signature"), forged) {
		t.Error("another body has the same signature")
	}
}

// TestTheSignatureIsThatOfStandardWebhooks compares with the example of its specification.
func TestTheSignatureIsThatOfStandardWebhooks(t *testing.T) {
	const secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `{"test": 2432232314}`
	if got := sign([]byte(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(body)); got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Error(got)
	}
}

func TestAReceiverThatFailsIsTriedAgainAndOneThatIsGoneIsNot(t *testing.T) {
	status := 0
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, strings.Repeat("what the receiver says is not read", 1<<16))
	})
	for _, status = range []int{500, 503, 404, 401, 429, 410} {
		err := r.send(t, here)
		if err == nil || isPermanent(err) != (status == 410) || !strings.Contains(err.Error(), strconv.Itoa(status)) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "says") {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	other := newReceiver(t, func(http.ResponseWriter, *http.Request) { t.Error("it was followed") })
	r := newReceiver(t, func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, other.URL, http.StatusTemporaryRedirect)
	})
	if err := r.send(t, here); err == nil || isPermanent(err) || !strings.Contains(err.Error(), "redirects are not followed") {
		t.Errorf("%v", err)
	}
}

func TestAReceiverThatHangsIsLeftWhenItsTimeIsOver(t *testing.T) {
	held := make(chan struct{})
	r := newReceiver(t, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-held:
		case <-q.Context().Done():
		}
	})
	defer close(held)
	s := New("naru.test", here)
	s.patience = 200 * time.Millisecond
	if err := s.Send(t.Context(), r.channel, keys, waits); err == nil || isPermanent(err) || strings.Contains(err.Error(), "room=secret") {
		t.Errorf("%v", err)
	}
}

func TestP16ChannelsLeadNeitherToThisMachineNorToWhatOnlyMachinesBesideItShouldReach(t *testing.T) {
	r := newReceiver(t, func(http.ResponseWriter, *http.Request) { t.Error("it was reached") })
	if err := r.send(t, nil); err == nil || !strings.Contains(err.Error(), "notifications.allow") {
		t.Errorf("%v", err)
	}
	g := Guard{}
	for _, address := range []string{
		"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200",
		"168.63.129.16", "224.0.0.1", "ff02::1", "255.255.255.255", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::127.0.0.1", "0.1.2.3",
	} {
		if err := g.check(netip.MustParseAddr(address)); err == nil {
			t.Errorf("%s may be reached", address)
		}
	}
	all, err := net.InterfaceAddrs()
	if err != nil || len(all) == 0 {
		t.Fatalf("%v %v", all, err)
	}
	for _, own := range all {
		if err := g.check(netip.MustParsePrefix(own.String()).Addr()); err == nil {
			t.Errorf("%s, which is this machine's, may be reached", own)
		}
	}
	for _, address := range []string{"10.1.2.3", "192.168.1.1", "203.0.113.7", "2001:db8::1", "fd12::1"} {
		if err := g.check(netip.MustParseAddr(address)); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAWebhookIsAnHTTPSURLAndNothingElse(t *testing.T) {
	for _, text := range []string{"http://example.org/", "https://kim@example.org/", "https:///x", "https://example.org/#x", "ftp://example.org"} {
		if err := Check(&apiv1.NotificationChannel{Webhook: &apiv1.Webhook{Url: text}}); !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := Check(&apiv1.NotificationChannel{Webhook: &apiv1.Webhook{Url: "https://example.org:8443/x?y=z"}}); err != nil {
		t.Error(err)
	}
}
