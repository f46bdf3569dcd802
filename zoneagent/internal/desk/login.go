package desk

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/door"
	"github.com/naru-project/naru/pkg/locallogin"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/sealed"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
	zonev1 "github.com/naru-project/naru/proto/gen/naru/zone/v1"
	"github.com/naru-project/naru/zoneagent/internal/etcdstore"
)

const (
	// sessionTime is how long a session lasts while the zone is cut off.
	sessionTime = 12 * time.Hour
	// maxSessions is how many sessions an operator may have; the oldest ends for a new one.
	maxSessions = 32
	// challengeTime is how long a challenge may be answered.
	challengeTime = time.Minute
	nonceSize     = 16
)

// operators tells fn each of the zone's operators.
func (d *Desk) operators(fn func(*linkv1.Operator)) {
	var all []*linkv1.LocalOperator
	d.Picture.Nouns("local-operator", func(desired, _ proto.Message) { all = append(all, desired.(*linkv1.LocalOperator)) })
	d.knows.Lock()
	defer d.knows.Unlock()
	is := map[string]known{}
	for _, l := range all {
		k := d.known[l.GetId()]
		if k.Operator == nil || !proto.Equal(k.generation, l.GetGeneration()) {
			k = known{l.GetGeneration(), &linkv1.Operator{}}
			if err := sealed.OpenMessage(d.SealingKey, sealed.ForOperator(d.ZoneID, l.GetId()), l.GetSealed(), k.Operator); err != nil {
				d.Log.Error("what the control plane says of an operator cannot be opened; they cannot log in here", "user_id", l.GetId(), "error", err)
				k.Operator = &linkv1.Operator{} // of nobody
			}
		}
		is[l.GetId()] = k
		if k.GetUserId() == l.GetId() {
			fn(k.Operator)
		}
	}
	d.known = is
}

// operator finds one by name or id; nil where there is none whose role has not ended.
func (d *Desk) operator(is func(*linkv1.Operator) bool) (found *linkv1.Operator) {
	d.operators(func(o *linkv1.Operator) {
		if is(o) && (o.GetUntil() == nil || d.Now().Before(o.GetUntil().AsTime())) {
			found = o
		}
	})
	return found
}

// beginLogin gives what is to be signed. Of a name that is nobody's it makes a salt of the name, so that the answer looks the same
// each time.
func (d *Desk) beginLogin(zone *apiv1.Zone, r *apiv1.BeginLocalLoginRequest, reply *apiv1.BeginLocalLoginResponse) error {
	salt := d.mac("salt", []byte(r.GetUser()))[:locallogin.SaltSize]
	if o := d.operator(func(o *linkv1.Operator) bool { return o.GetUser() == r.GetUser() }); o != nil {
		salt = o.GetSalt()
	}
	challenge := binary.BigEndian.AppendUint64(nil, uint64(d.Now().Unix()))
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails
	challenge = append(challenge, nonce...)
	challenge = append(challenge, d.mac("challenge", challenge, []byte(r.GetUser()))...)
	proto.Merge(reply, &apiv1.BeginLocalLoginResponse{Zone: zone.GetName(), ZoneId: zone.GetId(), Salt: salt, Challenge: challenge})
	return nil
}

func (d *Desk) mac(purpose string, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, d.ChallengeKey)
	m.Write([]byte(purpose + "\x00"))
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// fresh reports whether a challenge is of an agent of this zone, for this user, and not old.
func (d *Desk) fresh(challenge []byte, user string) bool {
	const signed = 8 + nonceSize
	if len(challenge) != signed+sha256.Size || !hmac.Equal(challenge[signed:], d.mac("challenge", challenge[:signed], []byte(user))) {
		return false
	}
	age := d.Now().Sub(time.Unix(int64(binary.BigEndian.Uint64(challenge)), 0))
	return age >= -challengeTime && age <= challengeTime
}

// logIn begins a session. Of a wrong name and a wrong password the answer is the same.
func (d *Desk) logIn(ctx context.Context, own *etcdstore.Ownership, zone *apiv1.Zone, c Call, r *apiv1.LogInLocallyRequest, reply *apiv1.LogInLocallyResponse) error {
	if !d.fresh(r.GetChallenge(), r.GetUser()) {
		return problem.New(problem.TokenExpired, "the login took longer than a minute, or was begun in another zone", "Log in again: naru login --local.")
	}
	o := d.operator(func(o *linkv1.Operator) bool { return o.GetUser() == r.GetUser() })
	device := slices.ContainsFunc(o.GetDevices(), func(known []byte) bool { return hmac.Equal(known, r.GetDevice()) })
	way := door.Way{User: r.GetUser(), Place: zone.GetName(), From: c.Client}
	if device {
		way.Own = hex.EncodeToString(r.GetDevice())
	}
	who := &person{zone: zone, call: c, own: own, operator: o, Session: &apiv1.Session{User: o.GetUser(), UserId: o.GetUserId(), Strength: apiv1.Session_PASSWORD}}
	if err := d.doors.Knock(way); err != nil {
		return d.refuse(ctx, who, "session.log-in", nil, err)
	}
	claim := locallogin.Claim{ZoneID: d.ZoneID, User: r.GetUser(), Challenge: r.GetChallenge(), Device: r.GetDevice(), SecretHash: r.GetSecretHash(), Client: r.GetClient()}
	public := o.GetPublicKey()
	if o == nil {
		public = make([]byte, 32) // it takes as long
	}
	if !claim.SignedBy(public, r.GetSignature()) || o == nil {
		return d.refuse(ctx, who, "session.log-in", nil, problem.New(problem.Unauthenticated,
			"the name or the password is wrong, or the user is no operator of this zone", "While the zone is cut off, its own operators log in, with their own password of Naru's. Try again."))
	}
	if o.GetDeviceNeeded() && !device {
		return d.refuse(ctx, who, "session.log-in", nil, problem.Newf(problem.Forbidden,
			"Log in from a machine from which you have logged in before the zone was cut off.", "user %s has an authenticator; in its place a machine is asked for that is known, and this one is not", o.GetUser()))
	}
	if device {
		who.Strength = apiv1.Session_TWO_FACTORS
	}
	now := d.Now()
	who.Id, who.Zone, who.ZoneId, who.Client, who.SecretHash = uuid.Must(uuid.NewV7()).String(), zone.GetName(), zone.GetId(), r.GetClient(), r.GetSecretHash()
	who.CreatedAt, who.ExpiresAt = timestamppb.New(now), timestamppb.New(now.Add(sessionTime))
	if until := o.GetUntil(); until != nil && until.AsTime().Before(who.GetExpiresAt().AsTime()) {
		who.ExpiresAt = until
	}
	over, err := d.over(ctx, o.GetUserId())
	if err != nil {
		return err
	}
	err = d.write(ctx, own, who.entry("session.log-in", nil), func(tx *etcdstore.Tx) {
		for _, id := range over {
			tx.DeleteLocalSession(id)
		}
		tx.PutLocalSession(&zonev1.LocalSession{Session: who.Session, PublicKey: o.GetPublicKey()})
	})
	if err != nil {
		return err
	}
	d.doors.Open(way)
	told := proto.CloneOf(who.Session)
	told.SecretHash = nil
	reply.Session, reply.Permissions = told, o.GetPermissions()
	return nil
}

// endAtOnce bounds how many sessions that are over go with one login.
const endAtOnce = 64

// over are the sessions that go when somebody begins another: those that have ended, and their own oldest where they have too many.
func (d *Desk) over(ctx context.Context, userID string) (ids []string, err error) {
	all, err := d.Store.LocalSessions(ctx)
	if err != nil {
		return nil, err
	}
	var own []string // the oldest first: ids go by time
	for _, s := range all {
		switch m := s.GetSession(); {
		case !d.Now().Before(m.GetExpiresAt().AsTime()):
			ids = append(ids, m.GetId())
		case m.GetUserId() == userID:
			own = append(own, m.GetId())
		}
	}
	ids = append(own[:max(0, len(own)-maxSessions+1)], ids...)
	return ids[:min(len(ids), endAtOnce)], nil
}

// whose finds the session of a credential. Errors: problems TOKEN_INVALID and TOKEN_EXPIRED.
func (d *Desk) whose(ctx context.Context, credential string) (*person, error) {
	invalid := problem.New(problem.TokenInvalid, "this is no session in this zone", "Log in: naru login --local.")
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(credential, "Bearer "+locallogin.TokenPrefix))
	if err != nil || len(b) != 16+32 {
		return nil, invalid
	}
	id := uuid.UUID(b[:16]).String()
	c, err := d.Store.Get(ctx, etcdstore.LocalSession, "", id)
	if missing(err) {
		return nil, invalid
	}
	if err != nil {
		return nil, err
	}
	kept := c.Message.(*zonev1.LocalSession)
	s := kept.GetSession()
	if hash := sha256.Sum256(b[16:]); subtle.ConstantTimeCompare(hash[:], s.GetSecretHash()) != 1 {
		return nil, invalid
	}
	o := d.operator(func(o *linkv1.Operator) bool { return o.GetUserId() == s.GetUserId() })
	if !d.Now().Before(s.GetExpiresAt().AsTime()) || o == nil || !bytes.Equal(o.GetPublicKey(), kept.GetPublicKey()) {
		return nil, problem.New(problem.TokenExpired, "the session has ended", "Log in again: naru login --local.")
	}
	return &person{Session: s, operator: o}, nil
}
