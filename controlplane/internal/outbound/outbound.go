// Package outbound sends one message through one notification channel: a mail, or a CloudEvent to a webhook. It keeps nothing and
// tries nothing twice; who calls it does.
package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// sendTime is how long one message may take, whatever the other end does.
const sendTime = 20 * time.Second

// Message is what is sent.
type Message struct {
	// ID is the delivery's: who gets the message twice knows it by that.
	ID string
	// Notification says no more than may be read where the channel leads.
	Notification *apiv1.Notification
	// Recipients are names of the people who are told.
	Recipients []string
	// Address and Language are the person's, of mail.
	Address, Language string
}

// Permanent is a refusal that would be repeated however often the message were sent.
type Permanent struct{ Err error }

func (p *Permanent) Error() string { return p.Err.Error() }
func (p *Permanent) Unwrap() error { return p.Err }

// Sender sends. It is safe for concurrent use.
type Sender struct {
	federation string
	guard      Guard
	// patience is how long one message may take; a test has less.
	patience time.Duration
}

// New returns a sender for a federation. allowed are networks with which it may connect although they are refused otherwise.
func New(federation string, allowed Networks) *Sender {
	return &Sender{federation: federation, guard: Guard{Allowed: allowed, What: "channels", Key: "notifications.allow"}, patience: sendTime}
}

// Send sends a message, signed or logged in with a channel's secrets, the newest first. An error tells nothing of these, and nothing
// that controls a terminal. Errors: *Permanent where trying again is in vain.
func (s *Sender) Send(ctx context.Context, ch *apiv1.NotificationChannel, secrets [][]byte, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var err error
	if ch.GetMail() != nil {
		err = s.mail(ctx, ch.GetMail(), secrets, m)
	} else {
		err = s.webhook(ctx, ch.GetWebhook(), secrets, m)
	}
	if err == nil {
		return nil
	}
	told := errors.New(Printable(err.Error()))
	if permanent := (*Permanent)(nil); errors.As(err, &permanent) {
		return &Permanent{told}
	}
	return told
}

// Check refuses a channel that could never send.
func Check(ch *apiv1.NotificationChannel) error {
	for field, pem := range map[string]string{"mail.ca": ch.GetMail().GetCa(), "webhook.ca": ch.GetWebhook().GetCa()} {
		if pem != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(pem)) {
			return problem.New(problem.Invalid, "the CA is no certificate in PEM", "Send the certificate that signs the server's: -----BEGIN CERTIFICATE-----.").With(field, "is no certificate in PEM")
		}
	}
	if ch.GetWebhook() != nil {
		return checkURL(ch.GetWebhook().GetUrl())
	}
	return nil
}

// SealingRole is the role under which a channel's secrets are sealed.
func SealingRole(channelID string) string { return "notification-channel/" + channelID }

// Secrets opens what is kept of a channel's secrets and counts at a time, the newest first.
func Secrets(kept *commandv1.ChannelSecrets, unseal func(role string, sealed []byte) ([]byte, error), now time.Time) (out [][]byte, err error) {
	all := [][]byte{kept.GetSealed()}
	if kept.GetBeforeUntil() != nil && now.Before(kept.GetBeforeUntil().AsTime()) {
		all = append(all, kept.GetSealedBefore())
	}
	for _, sealed := range all {
		if len(sealed) == 0 {
			continue
		}
		secret, err := unseal(SealingRole(kept.GetChannelId()), sealed)
		if err != nil {
			return nil, errors.New("the channel's secret does not open: set it again")
		}
		out = append(out, secret)
	}
	return out, nil
}

// tlsFor is how a server of the name is spoken to.
func tlsFor(host, ca string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("the channel's CA is no certificate in PEM")
		}
	}
	return c, nil
}

// Printable is a text of some length from elsewhere as it may be shown and logged.
func Printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if r := []rune(s); len(r) > 300 {
		return string(r[:300]) + " …"
	}
	return s
}
