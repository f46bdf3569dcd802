package outbound

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// here lets channels lead to this machine.
var here = Networks{netip.MustParsePrefix("127.0.0.0/8")}

// post is a mail server in a process of its own.
type post struct {
	*testing.T
	channel *apiv1.NotificationChannel
	process *exec.Cmd
	lines   *bufio.Reader
}

// taken is a mail that the server has taken.
type taken struct {
	From    string
	To      []string
	TLS     bool
	User    string
	Content string
}

func newPost(t *testing.T, mode string) *post {
	t.Helper()
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	ca := selfSigned(t, certificate, key)
	p := &post{T: t, process: exec.Command("/usr/bin/python3", "testdata/smtpd.py", certificate, key, mode)}
	p.process.Stderr = os.Stderr
	out, err := p.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.process.Start(); err != nil {
		t.Fatalf("the mail server of the test does not start; make setup installs it: %v", err)
	}
	t.Cleanup(func() {
		_ = p.process.Process.Kill()
		_ = p.process.Wait()
	})
	p.lines = bufio.NewReader(out)
	port, err := p.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the mail server of the test does not start; make setup installs it: %v", err)
	}
	p.channel = &apiv1.NotificationChannel{Name: "mail", Mail: &apiv1.Mail{
		Server: "127.0.0.1:" + strings.TrimSpace(port), Ca: ca, From: "naru@example.org", User: "naru"}}
	if mode == "implicit" {
		p.channel.Mail.Tls = apiv1.Mail_IMPLICIT
	}
	return p
}

// selfSigned writes a certificate for this machine and its key, and returns it as its own CA.
func selfSigned(t *testing.T, certificate, key string) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(certificate, text, 0o600), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var password = [][]byte{[]byte("open sesame")}

func (p *post) send(to string, change func(*Message)) error {
	p.Helper()
	m := Message{ID: "0192-delivery", Address: to, Notification: &apiv1.Notification{
		Topic: "request.waiting", About: &apiv1.Reference{Kind: "request", Id: "1", Name: "r-1042"}, Project: "web", By: "ann", CreatedAt: timestamppb.New(time.Unix(1_800_000_000, 0)),
		Parameters: []*apiv1.Notification_Parameter{{Key: "stage", Value: "review"}}}}
	if change != nil {
		change(&m)
	}
	return New("naru.test", here).Send(context.Background(), p.channel, password, m)
}

// next returns the next mail that the server has taken.
func (p *post) next() taken {
	p.Helper()
	line, err := p.lines.ReadString('\n')
	if err != nil {
		p.Fatal(err)
	}
	var m taken
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		p.Fatal(err)
	}
	return m
}

func (m taken) letter(t *testing.T) (h mail.Header, subject, text string) {
	t.Helper()
	parsed, err := mail.ReadMessage(strings.NewReader(m.Content))
	if err != nil {
		t.Fatal(err)
	}
	if subject, err = new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(parsed.Body))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Header, subject, strings.ReplaceAll(string(body), "\r\n", "\n")
}

func isPermanent(err error) bool {
	var p *Permanent
	return errors.As(err, &p)
}

func TestAMailGoesOverTLSAfterALoginAndSaysWhatWaits(t *testing.T) {
	for _, mode := range []string{"starttls", "implicit"} {
		t.Run(mode, func(t *testing.T) {
			p := newPost(t, mode)
			if err := p.send("bob@example.org", nil); err != nil {
				t.Fatal(err)
			}
			m := p.next()
			if m.From != "naru@example.org" || len(m.To) != 1 || m.To[0] != "bob@example.org" || !m.TLS && mode == "starttls" || m.User != "naru" {
				t.Errorf("%+v", m)
			}
			h, subject, text := m.letter(t)
			if subject != "[Naru] Request r-1042 waits for your decision" || h.Get("Message-Id") != "<0192-delivery@example.org>" || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") || h.Get("Auto-Submitted") != "auto-generated" {
				t.Errorf("%q %v", subject, h)
			}
			const want = "Request r-1042 waits for your decision.\n\nProject: web\nStage: review\nBy: ann\n\n  naru approve r-1042\n\n-- \nNaru, naru.test\n"
			if text != want {
				t.Errorf("it says\n%s", text)
			}
		})
	}
}

func TestAMailIsInTheReadersLanguage(t *testing.T) {
	p := newPost(t, "starttls")
	p.channel.Mail.Language = "en"
	if err := p.send("bob@example.org", func(m *Message) { m.Language = "ko-KR" }); err != nil {
		t.Fatal(err)
	}
	if _, subject, text := p.next().letter(t); subject != "[Naru] 신청 r-1042 건이 결재를 기다립니다" || !strings.Contains(text, "결재 단계: review") {
		t.Errorf("%q\n%s", subject, text)
	}
	p.channel.Mail.Language = "ko"
	if err := p.send("bob@example.org", nil); err != nil {
		t.Fatal(err)
	}
	if h, _, _ := p.next().letter(t); h.Get("Content-Language") != "ko" {
		t.Errorf("%v", h)
	}
}

func TestWhatAMailServerRefusesForNowIsTriedAgainAndForGoodIsNot(t *testing.T) {
	p := newPost(t, "starttls")
	for range 2 {
		if err := p.send("busy@example.org", nil); err == nil || isPermanent(err) || !strings.Contains(err.Error(), "451") {
			t.Fatalf("%v", err)
		}
	}
	if err := p.send("busy@example.org", nil); err != nil {
		t.Errorf("the third time: %v", err)
	}
	if m := p.next(); m.To[0] != "busy@example.org" {
		t.Errorf("%+v", m)
	}
	if err := p.send("unknown@example.org", nil); !isPermanent(err) || !strings.Contains(err.Error(), "550") || strings.ContainsRune(err.Error(), '\u202e') {
		t.Errorf("%q", err)
	}
}

func TestAMailServerThatDiesMidwayHasNotTakenTheMail(t *testing.T) {
	p := newPost(t, "starttls")
	if err := p.send("die@example.org", nil); err == nil || isPermanent(err) {
		t.Errorf("%v", err)
	}
	_ = p.process.Wait()
	if err := p.send("bob@example.org", nil); err == nil || isPermanent(err) {
		t.Errorf("nobody is there, and it came to %v", err)
	}
}

func TestAMailServerThatNeverAnswersIsLeftWhenTheCallerGoes(t *testing.T) {
	p := newPost(t, "starttls")
	ctx, cancel := context.WithCancel(t.Context())
	sender, ended := New("naru.test", here), make(chan error, 1)
	go func() {
		ended <- sender.Send(ctx, p.channel, password, Message{ID: "x", Address: "deaf@example.org", Notification: &apiv1.Notification{Topic: "account.enabled", CreatedAt: timestamppb.Now()}})
	}()
	p.next() // it has all of the mail, and does not answer
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it was taken")
		}
	case <-time.After(sendTime / 2):
		t.Error("it still waits")
	}
}

func TestNothingIsSaidToAServerWithoutTLSOrOfAnotherCA(t *testing.T) {
	p := newPost(t, "plain")
	if err := p.send("bob@example.org", nil); err == nil || isPermanent(err) {
		t.Errorf("without STARTTLS: %v", err)
	}
	other := newPost(t, "starttls")
	other.channel.Mail.Ca = ""
	if err := other.send("bob@example.org", nil); err == nil || isPermanent(err) {
		t.Errorf("of a CA that nobody knows: %v", err)
	}
}

func TestAWrongPasswordIsAnErrorThatTellsNoneAndIsNotForGood(t *testing.T) {
	p := newPost(t, "starttls")
	err := New("naru.test", here).Send(t.Context(), p.channel, [][]byte{[]byte("hunter2 hunter2")}, Message{ID: "x", Address: "bob@example.org", Notification: &apiv1.Notification{CreatedAt: timestamppb.Now()}})
	if err == nil || isPermanent(err) || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "refuses the login of naru") {
		t.Errorf("%v", err)
	}
	if err := New("naru.test", here).Send(t.Context(), p.channel, nil, Message{ID: "x", Address: "bob@example.org", Notification: &apiv1.Notification{CreatedAt: timestamppb.Now()}}); err == nil || isPermanent(err) {
		t.Errorf("without a password: %v", err)
	}
}

func TestHostileNamesPutNothingIntoAMailButThemselves(t *testing.T) {
	p := newPost(t, "starttls")
	const hostile = "r-1\r\nBcc: eve@example.org\r\n\r\n<script>alert(1)</script>{stage}\u202e\x1b[2J"
	if err := p.send("bob@example.org", func(m *Message) {
		m.Notification.About.Name, m.Notification.Project, m.Notification.By = hostile, hostile, hostile
		m.Notification.Parameters[0].Value = hostile
	}); err != nil {
		t.Fatal(err)
	}
	m := p.next()
	h, subject, text := m.letter(t)
	if len(m.To) != 1 || h.Get("Bcc") != "" || strings.ContainsAny(subject, "\r\n\x1b\u202e") || strings.ContainsAny(text, "\x1b\u202e") || strings.Contains(subject, "review") {
		t.Errorf("%v\n%q\n%s", h, subject, text)
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "Bcc:") {
			t.Errorf("a line of its own: %q", line)
		}
	}
	for _, address := range []string{"", "bob@example.org, eve@example.org", "bob@example.org\r\nBcc: eve@example.org", "no address"} {
		if err := p.send(address, nil); !isPermanent(err) {
			t.Errorf("to %q: %v", address, err)
		}
	}
}
