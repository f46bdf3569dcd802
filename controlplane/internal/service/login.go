package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/credential"
	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/door"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

const (
	// sessionTime is how long a session lasts: a working day, and the next begins with a login.
	sessionTime = 12 * time.Hour
	// stepUpTime is how long a step-up lasts.
	stepUpTime = 10 * time.Minute
)

// Secrets opens what people sealed to the control plane, and seals what the replicated state keeps of them.
type Secrets interface {
	// SealingKey returns the public key to which people seal now, with the chain of this server and its signature of the key.
	SealingKey(ctx context.Context) (key *sealed.Key, chain [][]byte, signature []byte, err error)
	// OpenSecrets opens what a person typed. Errors: problem CONFLICT where the key is no longer good, INVALID where it was
	// sealed for something else.
	OpenSecrets(context.Context, sealed.For, *apiv1.Sealed) (*apiv1.Secrets, error)
	// VouchWay signs a way to log in, with the chain of this server.
	VouchWay(sealed.Way) (chain [][]byte, signature []byte, err error)
	// Seal encrypts a secret for the state; Unseal is its reverse. role says what it is.
	Seal(role string, plain []byte) ([]byte, error)
	Unseal(role string, sealed []byte) ([]byte, error)
}

func (s sessionService) GetLoginOptions(ctx context.Context, _ *apiv1.GetLoginOptionsRequest) (*apiv1.GetLoginOptionsResponse, error) {
	key, chain, signature, err := s.Secrets.SealingKey(ctx)
	if err != nil {
		return nil, err
	}
	zone, err := s.zoneOfCall(ctx)
	if err != nil {
		return nil, err
	}
	providers, err := s.loginProviders(ctx)
	return &apiv1.GetLoginOptionsResponse{
		SealingKey: key.Public, SealingKeyId: key.ID, SealingKeyUntil: timestamppb.New(key.Until), SealingChain: chain, SealingSignature: signature, Zone: zone.GetName(),
		IdentityProviders: providers,
	}, err
}

// zoneOfCall is the zone at whose edge the call was made; none in the control network.
func (s *Service) zoneOfCall(ctx context.Context) (zone *apiv1.Zone, err error) {
	if id := callOf(ctx).ViaZoneID; id != "" {
		err = s.view(ctx, func(tx *state.Tx) (err error) { zone, err = tx.Zones.Get(id); return err })
	}
	return zone, err
}

// LogIn begins a session. Of a wrong name, a wrong password and a wrong code the answer is the same, and takes as long.
func (s sessionService) LogIn(ctx context.Context, r *apiv1.LogInRequest) (*apiv1.LogInResponse, error) {
	claim := claim{name: r.GetUser(), hash: r.GetSecretHash(), method: apiv1.SessionService_LogIn_FullMethodName, sealed: r.GetSecrets()}
	shown, err := s.judge(ctx, claim)
	if err != nil {
		return nil, s.refused(ctx, "session.log-in", shown, err)
	}
	if shown.person != nil {
		m, err := s.beginByProvider(ctx, shown, r.GetSecretHash(), r.GetClient(), nil)
		return &apiv1.LogInResponse{Session: m}, err
	}
	zone, err := s.zoneOfCall(ctx)
	if err != nil {
		return nil, err
	}
	id := newID()
	result, err := s.propose(asShown(ctx, shown, id), nil, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_BeginSession{BeginSession: &commandv1.BeginSession{
			Session: &apiv1.Session{
				Id: id, User: shown.user.GetName(), UserId: shown.user.GetId(), Zone: zone.GetName(), ZoneId: zone.GetId(), Strength: shown.strength,
				Client: r.GetClient(), ExpiresAt: timestamppb.New(time.Now().Add(sessionTime)), SecretHash: r.GetSecretHash(),
			},
			Shown: shown.proof, DeviceHash: hashOf(shown.secrets.GetDevice()),
		}}
	})
	if err != nil {
		return nil, err
	}
	s.doors.Open(shown.way)
	m, err := s.sessions.decode(result)
	return &apiv1.LogInResponse{Session: m}, err
}

// asShown is a call of somebody who has shown who they are, and whose session begins with it.
func asShown(ctx context.Context, shown *shown, sessionID string) context.Context {
	call := callOf(ctx)
	call.Principal = auth.Principal{
		Kind: auth.User, Name: shown.user.GetName(), Actor: "user:" + shown.user.GetName(), ID: shown.user.GetId(), UserID: shown.user.GetId(),
		SessionID: sessionID, Strength: shown.strength,
	}
	return WithCall(ctx, call)
}

// StepUp lets a user show once more who they are.
func (s sessionService) StepUp(ctx context.Context, r *apiv1.StepUpRequest) (*apiv1.StepUpResponse, error) {
	session, shown, err := s.showAgain(ctx, "session.step-up", apiv1.SessionService_StepUp_FullMethodName, r.GetSecrets())
	if err != nil {
		return nil, err
	}
	result, err := s.propose(ctx, r, func(c *commandv1.Command) {
		c.Body = &commandv1.Command_StepUpSession{StepUpSession: &commandv1.StepUpSession{
			SessionId: session.GetId(), Shown: shown.proof, Strength: shown.strength, Until: timestamppb.New(time.Now().Add(stepUpTime)), TicketHash: hashOf(shown.secrets.GetTicket()),
		}}
	})
	if err != nil {
		return nil, err
	}
	s.doors.Open(shown.way)
	m, err := s.sessions.decode(result)
	return &apiv1.StepUpResponse{Session: m}, err
}

// claim is somebody's word of who they are, with what is to show it.
type claim struct {
	name   string
	hash   []byte // of the session's secret
	method string
	sealed *apiv1.Sealed
	// enrolling asks for a code of the authenticator that is being enrolled.
	enrolling bool
	// session is that of who shows it again; nil where one is to begin.
	session *apiv1.Session
}

// shown is what came of a claim.
type shown struct {
	user     *apiv1.User
	kept     *commandv1.Credentials
	secrets  *apiv1.Secrets
	strength apiv1.Session_Strength
	proof    *commandv1.Shown
	way      door.Way

	// Where a provider says who it is: what it says, and which identity that is, a new one where it is nobody's yet.
	provider *apiv1.IdentityProvider
	person   *provider.Person
	identity *apiv1.Identity
	// why it was refused, for the record alone.
	why string
}

// showAgain judges what the user of a session shows once more.
func (s *Service) showAgain(ctx context.Context, action, method string, in *apiv1.Sealed) (*apiv1.Session, *shown, error) {
	id, err := ownSession(ctx)
	if err != nil {
		return nil, nil, err
	}
	session, err := s.Session(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	c := claim{name: session.GetUser(), hash: session.GetSecretHash(), method: method, sealed: in, enrolling: method == apiv1.UserService_ConfirmAuthenticator_FullMethodName, session: session}
	out, err := s.judge(ctx, c)
	if err != nil {
		return nil, nil, s.refused(ctx, action, out, err)
	}
	return session, out, nil
}

// judge holds a claim against what is kept. What it returns with an error says how far it came.
func (s *Service) judge(ctx context.Context, c claim) (*shown, error) {
	out := &shown{}
	err := s.opened(ctx, c, out)
	if err != nil {
		return out, err
	}
	if c.session.GetIdentityId() != "" || c.session == nil && out.secrets.GetIdentityProvider() != "" {
		return out, s.judgeByProvider(ctx, c, out)
	}
	err = s.read(ctx, func(tx *state.Tx) (err error) {
		out.user, out.kept = nil, nil
		if out.user, err = tx.Users.ByName(c.name, nil); err == nil {
			out.kept, err = tx.Credentials(out.user.GetId())
		}
		if errors.Is(err, state.ErrNotFound) {
			err = nil
		}
		return err
	})
	if err != nil {
		return out, err
	}
	out.way = way(c.name, callOf(ctx), out)
	right := credential.IsOneTime(out.kept.GetPassword(), out.secrets.GetPassword())
	if right {
		out.way.Own = out.kept.GetPassword()
	}
	if err := s.doors.Knock(out.way); err != nil {
		return out, err
	}
	if !right {
		right, err = s.passwords.Verify(ctx, whose(out.way), out.kept.GetPassword(), out.secrets.GetPassword())
		if err != nil {
			s.doors.Undo(out.way) // nobody has said whether it was right
			return out, err
		}
	}
	if !right {
		return out, wrong()
	}
	if out.user.GetDisabled() {
		return out, problem.Newf(problem.Forbidden, "Ask an administrator.", "user %s is disabled", out.user.GetName())
	}
	return out, s.judgeCode(c, out)
}

// way is by which way a claim comes: from a machine that the user has logged in from before it is one of its own.
func way(name string, call Call, s *shown) door.Way {
	device := hashOf(s.secrets.GetDevice())
	known := slices.ContainsFunc(s.kept.GetDevices(), func(d *commandv1.Credentials_Device) bool { return string(d.GetHash()) == string(device) })
	if !known {
		device = nil
	}
	return door.Way{User: name, Place: call.Place, From: call.From, Own: hex.EncodeToString(device)}
}

// whose says by which way a password comes to be hashed.
func whose(w door.Way) credential.Whose {
	out := credential.Whose{Place: w.Place, From: w.From}
	if w.Own != "" {
		out.Known = w.User + " " + w.Own
	}
	return out
}

// judgeCode judges the code, where one is needed, and completes the proof.
func (s *Service) judgeCode(c claim, out *shown) error {
	out.prove(c)
	authenticator := out.kept.GetSealedAuthenticator()
	if c.enrolling {
		authenticator = out.kept.GetSealedNewAuthenticator()
	}
	if len(authenticator) == 0 {
		return nil
	}
	if out.secrets.GetCode() == "" {
		s.doors.Halfway(out.way) // so far all was right: it is the try with the code that counts
		return problem.Newf(problem.CodeNeeded, "Send the code that the authenticator shows.", "user %s has an authenticator", out.user.GetName()).With("code", "is required")
	}
	secret, err := s.Secrets.Unseal(authenticatorRole(out.user.GetId()), authenticator)
	if err != nil {
		return err
	}
	step, right := credential.Step(secret, out.secrets.GetCode(), time.Now(), out.kept.GetStep())
	if !right {
		return wrong()
	}
	out.proof.Step, out.strength = step, apiv1.Session_TWO_FACTORS
	return nil
}

// prove completes the proof that something was shown, but for a code.
func (s *shown) prove(c claim) {
	seal := sha256.Sum256(c.sealed.GetCiphertext())
	s.proof = &commandv1.Shown{Revision: s.kept.GetRevision(), Seal: seal[:], KeyId: c.sealed.GetKeyId()}
	s.strength = apiv1.Session_PASSWORD
}

// wrong is one answer for a wrong name, a wrong password and a wrong code.
func wrong() error {
	return problem.New(problem.Unauthenticated, "the name, the password or the code is wrong", "Try again. A code counts once. Who has forgotten the password asks an administrator: naru user reset-password.")
}

// refused writes into the record that a claim was refused, and returns why. Of a name that is nobody's nothing is written down:
// it may be a password that was typed into the wrong field.
func (s *Service) refused(ctx context.Context, action string, out *shown, why error) error {
	d := Deed{Action: action, Outcome: apiv1.AuditEntry_REFUSED, Problem: why, Message: out.why}
	if out.user.GetCreatedAt() != nil {
		d.Actor, d.ActorID = "user:"+out.user.GetName(), out.user.GetId()
	}
	if err := s.Record(ctx, d); err != nil {
		return err
	}
	callOf(ctx).Asked.noteRecorded()
	return why
}

func authenticatorRole(userID string) string { return "authenticator/" + userID }

func hashOf(secret []byte) []byte {
	if len(secret) == 0 {
		return nil
	}
	sum := sha256.Sum256(secret)
	return sum[:]
}
