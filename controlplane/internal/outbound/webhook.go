package outbound

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Standard Webhooks (https://www.standardwebhooks.com), version 1: the signature is of ID.TIMESTAMP.BODY.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
	// keyPrefix stands before a key that is written in base64.
	keyPrefix = "whsec_"
	// minKey is in bytes.
	minKey = 16
)

// data is what an event says of what has happened.
type data struct {
	Topic      string            `json:"topic"`
	About      *reference        `json:"about,omitempty"`
	Project    string            `json:"project,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	By         string            `json:"by,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Results    []reference       `json:"results,omitempty"`
	Recipients []string          `json:"recipients,omitempty"`
}

type reference struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	Zone string `json:"zone,omitempty"`
}

// webhook posts one event. A redirect is not followed, and of the answer nothing is read but its status.
func (s *Sender) webhook(ctx context.Context, c *apiv1.Webhook, secrets [][]byte, m Message) error {
	if len(secrets) == 0 {
		return errors.New("no signing key is set: naru notification-channel secret")
	}
	body, err := s.event(m)
	if err != nil {
		return &Permanent{err}
	}
	to, err := url.Parse(c.GetUrl())
	if err != nil {
		return &Permanent{errors.New("the channel's URL is none")}
	}
	config, err := tlsFor(to.Hostname(), c.GetCa())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return &Permanent{errors.New("the channel's URL is none")}
	}
	now := time.Now().Unix()
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "naru")
	req.Header.Set(headerID, m.ID)
	req.Header.Set(headerTimestamp, strconv.FormatInt(now, 10))
	var signatures []string
	for _, secret := range secrets {
		signatures = append(signatures, sign(secret, m.ID, now, body))
	}
	req.Header.Set(headerSignature, strings.Join(signatures, " "))
	transport := &http.Transport{DialContext: s.guard.Dial, TLSClientConfig: config, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) { // its own text repeats the URL, which may hold what only the receiver should know
			err = failed.Err
		}
		return err
	}
	answer.Body.Close()
	switch {
	case answer.StatusCode/100 == 2:
		return nil
	case answer.StatusCode/100 == 3:
		return fmt.Errorf("the receiver answers %d: redirects are not followed", answer.StatusCode)
	case answer.StatusCode == http.StatusGone:
		return &Permanent{errors.New("the receiver answers 410: it is gone")}
	}
	return fmt.Errorf("the receiver answers %d", answer.StatusCode)
}

// event writes the CloudEvent of a message.
func (s *Sender) event(m Message) ([]byte, error) {
	n := m.Notification
	d := data{Topic: n.GetTopic(), Project: n.GetProject(), Zone: n.GetZone(), By: n.GetBy(), Recipients: m.Recipients}
	if a := n.GetAbout(); a != nil {
		d.About = &reference{Kind: a.GetKind(), ID: a.GetId(), Name: a.GetName()}
	}
	for _, p := range n.GetParameters() {
		if d.Parameters == nil {
			d.Parameters = map[string]string{}
		}
		d.Parameters[p.GetKey()] = p.GetValue()
	}
	for _, r := range n.GetResults() {
		d.Results = append(d.Results, reference{r.GetKind(), r.GetId(), r.GetName(), r.GetZone()})
	}
	e := event.New(event.CloudEventsVersionV1)
	e.SetID(m.ID)
	e.SetSource("/naru/" + url.PathEscape(s.federation))
	e.SetType("dev.naru." + n.GetTopic())
	if d.About != nil {
		e.SetSubject(d.About.Kind + "/" + d.About.ID)
	}
	e.SetTime(n.GetCreatedAt().AsTime())
	if err := e.SetData(event.ApplicationJSON, d); err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// sign is one signature of a body, as it stands in the header.
func sign(secret []byte, id string, at int64, body []byte) string {
	h := hmac.New(sha256.New, signingKey(secret))
	fmt.Fprintf(h, "%s.%d.", id, at)
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// signingKey is the key that a secret stands for.
func signingKey(secret []byte) []byte {
	if text, ok := strings.CutPrefix(string(secret), keyPrefix); ok {
		if key, err := base64.StdEncoding.DecodeString(text); err == nil {
			return key
		}
	}
	return secret
}

// CheckSecret refuses a secret that a channel could not use.
func CheckSecret(ch *apiv1.NotificationChannel, secret string) error {
	if ch.GetWebhook() == nil {
		return nil
	}
	text, encoded := strings.CutPrefix(secret, keyPrefix)
	if _, err := base64.StdEncoding.DecodeString(text); encoded && err != nil {
		return problem.New(problem.Invalid, "the signing key is no base64", "Write whsec_ and base64, or the key as it is.").With("secret", "is no base64")
	}
	if n := len(signingKey([]byte(secret))); n < minKey {
		return problem.Newf(problem.Invalid, "Take 32 random bytes.", "a signing key has %d bytes at least, and this one %d", minKey, n).With("secret", "is too short")
	}
	return nil
}

func checkURL(text string) error {
	to, err := url.Parse(text)
	if err != nil || to.Scheme != "https" || to.Hostname() == "" || to.User != nil || to.Fragment != "" {
		return problem.New(problem.Invalid, "a webhook is at https://HOST/…, without user and fragment", "Send such a URL; its secret is set apart.").With("webhook.url", "is no such URL")
	}
	return nil
}
