package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"

	"github.com/naru-project/naru/pkg/notice"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// mail sends one to one person, over TLS.
func (s *Sender) mail(ctx context.Context, c *apiv1.Mail, secrets [][]byte, m Message) error {
	letter, err := s.letter(c, m)
	if err != nil {
		return &Permanent{err}
	}
	client, err := s.client(ctx, c, secrets)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, letter)
	if err == nil || letter.IsDelivered() {
		return nil // what fails behind the server's word that it has the mail is of no concern
	}
	if strings.Contains(err.Error(), "SMTP AUTH failed") {
		// A server may repeat what it was told, so its words are not. Another password may be set: it is tried again.
		return fmt.Errorf("the mail server refuses the login of %s", c.GetUser())
	}
	if sent := (*mail.SendError)(nil); errors.As(err, &sent) && sent.ErrorCode() >= 500 {
		return &Permanent{err}
	}
	return err
}

// letter writes a mail. It is plain text: there is nothing in it that a reader's program would carry out.
func (s *Sender) letter(c *apiv1.Mail, m Message) (*mail.Msg, error) {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := letter.FromFormat("Naru", c.GetFrom()); err != nil {
		return nil, fmt.Errorf("from %s: %w", c.GetFrom(), err)
	}
	if err := letter.To(m.Address); err != nil || len(letter.GetTo()) != 1 {
		return nil, errors.New("the person's address is no address")
	}
	language := notice.Language(m.Language, c.GetLanguage())
	subject, text := notice.Mail(language, s.federation, m.Notification)
	letter.Subject(subject)
	letter.SetMessageIDWithValue(m.ID + "@" + domainOf(c.GetFrom()))
	letter.SetDateWithValue(m.Notification.GetCreatedAt().AsTime())
	letter.SetGenHeader("Auto-Submitted", "auto-generated")
	letter.SetGenHeader(mail.HeaderContentLang, language)
	letter.SetBodyString(mail.TypeTextPlain, text)
	return letter, nil
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

func (s *Sender) client(ctx context.Context, c *apiv1.Mail, secrets [][]byte) (*mail.Client, error) {
	host, service, err := net.SplitHostPort(c.GetServer())
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		return nil, err
	}
	config, err := tlsFor(host, c.GetCa())
	if err != nil {
		return nil, err
	}
	implicit := c.GetTls() == apiv1.Mail_IMPLICIT
	options := []mail.Option{
		mail.WithPort(port), mail.WithTimeout(sendTime / 2), mail.WithTLSConfig(config), mail.WithTLSPolicy(mail.TLSMandatory), mail.WithHELO(domainOf(c.GetFrom())),
		mail.WithDialContextFunc(func(dialing context.Context, network, address string) (net.Conn, error) {
			conn, err := s.guard.Dial(dialing, network, address)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			if !implicit {
				return conn, nil
			}
			secure := tls.Client(conn, config)
			if err := secure.HandshakeContext(dialing); err != nil {
				conn.Close()
				return nil, err
			}
			return secure, nil
		}),
	}
	if implicit {
		options = append(options, mail.WithSSL())
	}
	if c.GetUser() != "" {
		if len(secrets) == 0 {
			return nil, errors.New("no password is set for the mail server: naru notification-channel secret")
		}
		options = append(options, mail.WithUsername(c.GetUser()), mail.WithPassword(string(secrets[0])),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256PLUS, mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	return mail.NewClient(host, options...)
}
