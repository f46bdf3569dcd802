package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// secretSize is the size of a session's secret, and of what a machine keeps to be known by.
const secretSize = 32

// Session is a session as its user's machine keeps it. Whoever reads it acts as the user.
type Session struct {
	// Server is the configuration's, as it was when the session was begun.
	Server string `json:"server"`
	User   string `json:"user"`
	// Zone is the one at whose edge it counts, by name; empty in the control network.
	Zone string `json:"zone"`
	// ZoneID is that zone's id: only there does a password sign while it is cut off.
	ZoneID    string    `json:"zone_id,omitempty"`
	ID        string    `json:"id"`
	Secret    []byte    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at"`
	// Provider is the name of the identity provider through which it was begun; empty where it was not.
	Provider string `json:"provider,omitempty"`
	// Local: it was begun while the zone was cut off, and counts as long as it is. Permissions are what it allows there.
	Local       bool     `json:"local,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
}

// newSession makes the secret of a session that is to begin.
func newSession(user string) *Session {
	s := &Session{User: user, Secret: make([]byte, secretSize)}
	rand.Read(s.Secret) // never fails
	return s
}

// is takes in what the control plane says of the session that began.
func (s *Session) is(m *apiv1.Session) {
	s.ID, s.User, s.Zone, s.ZoneID, s.ExpiresAt, s.Provider = m.GetId(), m.GetUser(), m.GetZone(), m.GetZoneId(), m.GetExpiresAt().AsTime(), m.GetIdentityProvider()
}

// Token is what is sent to act in the session.
func (s *Session) Token() string {
	id, err := uuid.Parse(s.ID)
	if err != nil {
		return ""
	}
	prefix := "naru_s_"
	if s.Local {
		prefix = locallogin.TokenPrefix
	}
	return prefix + base64.RawURLEncoding.EncodeToString(append(id[:], s.Secret...))
}

// For says what secrets of the session's user are for.
func (s *Session) For(method string) sealed.For {
	hash := sha256.Sum256(s.Secret)
	return sealed.For{Method: method, User: s.User, SecretHash: hash[:]}
}

// LogIn begins a session, through a directory where typed names one. The secret of it is made here, and goes nowhere but into what is
// returned. Errors: LINK_DOWN at the edge of a zone that is cut off.
func (s *Services) LogIn(ctx context.Context, user string, typed *apiv1.Secrets, client string) (*Session, *apiv1.Session, error) {
	o, err := s.Sessions.GetLoginOptions(ctx, &apiv1.GetLoginOptionsRequest{})
	if err != nil {
		return nil, nil, err
	}
	out := newSession(user)
	is := out.For(apiv1.SessionService_LogIn_FullMethodName)
	secrets, err := s.sealTo(o, is, typed)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.Sessions.LogIn(ctx, &apiv1.LogInRequest{User: user, Secrets: secrets, SecretHash: is.SecretHash, Client: client})
	if err != nil {
		return nil, nil, err
	}
	out.is(r.GetSession())
	return out, r.GetSession(), nil
}

// Seal seals what a person typed to the control plane's newest key. Errors: ErrNotVouched.
func (s *Services) Seal(ctx context.Context, f sealed.For, typed *apiv1.Secrets) (*apiv1.Sealed, error) {
	o, err := s.Sessions.GetLoginOptions(ctx, &apiv1.GetLoginOptionsRequest{})
	if err != nil {
		return nil, err
	}
	return s.sealTo(o, f, typed)
}

func (s *Services) sealTo(o *apiv1.GetLoginOptionsResponse, f sealed.For, typed *apiv1.Secrets) (*apiv1.Sealed, error) {
	if o.GetCutOff() {
		return nil, problem.Newf(problem.LinkDown, "Try again when the link is up. If you know that it is cut off, and are one of the zone's own operators: naru login --local.",
			"zone %s says that it is cut off from the control plane, to whom this is to be shown", o.GetZone())
	}
	key, err := s.vouched(o, time.Now())
	if err != nil {
		return nil, problem.Newf(problem.CertificateInvalid,
			"An administrator tells you trust_pin: naru-controlplane pin. Where it is right, somebody between here and the control plane is lying: tell them.", "%w", err)
	}
	return sealed.Secrets(key.Public, key.ID, f, typed)
}

// LogInLocally begins a session in a zone that is cut off, of one of its own operators. The password stays here: it makes a key, by which
// the login is signed. Whoever answers can try passwords against what is signed, so it is for people to say that a zone is cut off, and never
// done because somebody answers so. zoneID is the zone's as it is known from before; empty where it is not.
func (s *Services) LogInLocally(ctx context.Context, zoneID, user string, typed *apiv1.Secrets, client string) (*Session, error) {
	begun, err := s.Sessions.BeginLocalLogin(ctx, &apiv1.BeginLocalLoginRequest{User: user})
	if err != nil {
		return nil, err
	}
	if zoneID != "" && begun.GetZoneId() != zoneID {
		return nil, problem.Newf(problem.CertificateInvalid, "Do not log in here. Tell an administrator.", "this edge was that of a zone with the id %s, and now says that it is %s", zoneID, begun.GetZoneId())
	}
	key, err := locallogin.Key(locallogin.Root(typed.GetPassword(), begun.GetSalt()), begun.GetZoneId())
	if err != nil {
		return nil, err
	}
	out := newSession(user)
	hash, device := sha256.Sum256(out.Secret), sha256.Sum256(typed.GetDevice())
	claim := locallogin.Claim{
		ZoneID: begun.GetZoneId(), User: user, Challenge: begun.GetChallenge(), Device: locallogin.Device(device[:], begun.GetZoneId()), SecretHash: hash[:], Client: client,
	}
	r, err := s.Sessions.LogInLocally(ctx, &apiv1.LogInLocallyRequest{
		User: user, Challenge: claim.Challenge, Signature: claim.Sign(key), Device: claim.Device, SecretHash: claim.SecretHash, Client: client,
	})
	if err != nil {
		return nil, err
	}
	out.is(r.GetSession())
	out.Local, out.Permissions = true, r.GetPermissions()
	return out, nil
}

// stateDir is where what the user's machine keeps lies: naru/ of XDG_STATE_HOME, or of ~/.local/state.
func stateDir() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(dir, "naru"), nil
}

func sessionPath(server string) (string, error) {
	dir, err := stateDir()
	sum := sha256.Sum256([]byte(server))
	return filepath.Join(dir, "session-"+hex.EncodeToString(sum[:8])+".json"), err
}

// LoadSession returns the session that was begun at a server; nil where there is none that has not ended.
func LoadSession(server string) (*Session, error) {
	s, err := lastSession(server)
	if s != nil && !time.Now().Before(s.ExpiresAt) {
		s = nil
	}
	return s, err
}

// KnownZone returns the id of the zone at whose edge one was last logged in at a server; empty where that is not known.
func KnownZone(server string) (string, error) {
	s, err := lastSession(server)
	if s == nil {
		return "", err
	}
	return s.ZoneID, err
}

// lastSession returns the session that was last begun at a server, ended or not; nil where there is none.
func lastSession(server string) (*Session, error) {
	path, err := sessionPath(server)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &Session{}
	if err := json.Unmarshal(b, s); err != nil || s.Server != server {
		return nil, fmt.Errorf("%s is damaged; log in again", path)
	}
	return s, nil
}

// Save keeps the session, for nobody but its user to read.
func (s *Session) Save() error {
	path, err := sessionPath(s.Server)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return keep(path, b)
}

// ForgetSession removes the session that was begun at a server, if there is one.
func ForgetSession(server string) error {
	path, err := sessionPath(server)
	if err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Device returns what this machine keeps to be known by, and makes it the first time.
func Device() ([]byte, error) {
	dir, err := stateDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "device")
	if b, err := os.ReadFile(path); err == nil && len(b) == secretSize {
		return b, nil
	}
	b := make([]byte, secretSize)
	rand.Read(b) // never fails
	return b, keep(path, b)
}

// keep writes a file that only its user reads, whole or not at all.
func keep(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}
