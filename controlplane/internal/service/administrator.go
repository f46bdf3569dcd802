package service

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/auth"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// administratorTime is how long an administrator's certificate lives where nobody said otherwise.
const administratorTime = 90 * 24 * time.Hour

type administratorService struct {
	apiv1.UnimplementedAdministratorServiceServer
	*Service
}

// Administrator returns an administrator by name, for whoever checks a certificate of the key with this fingerprint. It is
// shared and read-only. One that is remembered with another key is read again: it may just have been renewed. Of a person who is
// disabled there is a problem REVOKED.
func (s *Service) Administrator(ctx context.Context, name, fingerprint string) (*apiv1.Administrator, error) {
	m, age := s.people.get(name)
	if m.GetFingerprint() == fingerprint && m != nil {
		return m, nil
	}
	err := s.view(ctx, func(tx *state.Tx) (err error) {
		if m, err = tx.Administrators.ByName(name, nil); err != nil || m.GetUserId() == "" {
			return err
		}
		u, err := tx.Users.Get(m.GetUserId())
		if errors.Is(err, state.ErrNotFound) || err == nil && u.GetDisabled() {
			return problem.New(problem.Revoked, "the person who administrator "+name+" is has been disabled", "Ask another administrator.")
		}
		return err
	})
	if errors.Is(err, state.ErrNotFound) {
		return nil, problem.New(problem.NotFound, "there is no administrator "+name, "naru admin list shows which there are.")
	}
	if err != nil {
		return nil, err
	}
	s.people.put(name, m, age)
	return m, nil
}

func (s administratorService) ListAdministrators(ctx context.Context, r *apiv1.ListAdministratorsRequest) (*apiv1.ListAdministratorsResponse, error) {
	items, next, err := s.administrators.list(ctx, r, place{})
	return &apiv1.ListAdministratorsResponse{Administrators: items, NextPageToken: next}, err
}

func (s administratorService) GetAdministrator(ctx context.Context, r *apiv1.GetAdministratorRequest) (*apiv1.GetAdministratorResponse, error) {
	m, err := s.administrators.get(ctx, r.GetAdministrator(), place{})
	return &apiv1.GetAdministratorResponse{Administrator: m}, err
}

// CreateAdministrator records the key of a request and issues a certificate for it. A certificate is worth nothing without
// the record, so that comes first; a repetition of the request is issued a certificate again.
func (s administratorService) CreateAdministrator(ctx context.Context, r *apiv1.CreateAdministratorRequest) (*apiv1.CreateAdministratorResponse, error) {
	fingerprint, until, err := s.asked(r.GetCsr(), r.GetLifetimeSeconds())
	if err != nil {
		return nil, err
	}
	result, err := s.administrators.create(ctx, r, r.GetAdministrator(), func(tx *state.Tx, m *apiv1.Administrator) (state.Scope, error) {
		if err := s.mayLetAdminister(ctx, tx, until.AsTime()); err != nil {
			return nil, err
		}
		m.Fingerprint, m.ExpiresAt = fingerprint, until
		u, err := s.person(tx, m.GetUser())
		m.User, m.UserId = u.GetName(), u.GetId()
		return nil, err
	}, func(c *commandv1.Command, m *apiv1.Administrator) {
		c.Body = &commandv1.Command_CreateAdministrator{CreateAdministrator: &commandv1.CreateAdministrator{Administrator: m}}
	})
	m, chain, err := s.issued(ctx, r.GetCsr(), result, err)
	return &apiv1.CreateAdministratorResponse{Administrator: m, Chain: chain}, err
}

// RenewAdministrator records the key of a request for one that is there, and issues a certificate for it.
func (s administratorService) RenewAdministrator(ctx context.Context, r *apiv1.RenewAdministratorRequest) (*apiv1.RenewAdministratorResponse, error) {
	fingerprint, until, err := s.asked(r.GetCsr(), r.GetLifetimeSeconds())
	if err != nil {
		return nil, err
	}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		m, err := s.administrators.find(ctx, tx, r.GetAdministrator(), place{})
		if err != nil {
			return nil, err
		}
		if err := s.mayLetAdminister(ctx, tx, until.AsTime()); err != nil {
			return nil, err
		}
		u, err := s.person(tx, r.GetUser())
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_RenewAdministrator{RenewAdministrator: &commandv1.RenewAdministrator{
			AdministratorId: m.GetId(), Fingerprint: fingerprint, ExpiresAt: until, User: u.GetName(), UserId: u.GetId(),
		}}
		return nil, nil
	})
	m, chain, err := s.issued(ctx, r.GetCsr(), result, err)
	return &apiv1.RenewAdministratorResponse{Administrator: m, Chain: chain}, err
}

func (s administratorService) DeleteAdministrator(ctx context.Context, r *apiv1.DeleteAdministratorRequest) (*apiv1.DeleteAdministratorResponse, error) {
	op, err := s.administrators.remove(ctx, r, r.GetAdministrator(), place{}, func(c *commandv1.Command, d *commandv1.DeleteNoun) {
		c.Body = &commandv1.Command_DeleteAdministrator{DeleteAdministrator: d}
	})
	return &apiv1.DeleteAdministratorResponse{Operation: op}, err
}

// person finds the person who an administrator is; nobody where none is named.
func (s administratorService) person(tx *state.Tx, name string) (*apiv1.User, error) {
	if name == "" {
		return nil, nil
	}
	u, err := s.users.within(tx, name, nil)
	return u, inField(err, "user")
}

// asked reads the key of a request, and until when its certificate is to live.
func (s administratorService) asked(csr []byte, seconds uint32) (fingerprint string, until *timestamppb.Timestamp, err error) {
	life := administratorTime
	if seconds > 0 {
		life = time.Duration(seconds) * time.Second
	}
	fingerprint, err = s.Certificates.KeyOfRequest(csr)
	return fingerprint, timestamppb.New(time.Now().Add(life).UTC().Truncate(time.Second)), err
}

// issued issues what was recorded.
func (s administratorService) issued(ctx context.Context, csr []byte, r *commandv1.Result, err error) (*apiv1.Administrator, [][]byte, error) {
	if err != nil {
		return nil, nil, err
	}
	m, err := s.administrators.decode(r)
	if err != nil {
		return nil, nil, err
	}
	chain, err := s.Certificates.IssueAdministrator(ctx, m.GetName(), csr, m.GetExpiresAt().AsTime())
	return m, chain, err
}

// LetIn makes sure that there is an administrator of this name with the key of a request, and returns a certificate: for
// who holds a server's key, when no administrator's certificate is good any more. by is that server.
func (s *Service) LetIn(ctx context.Context, by auth.Principal, name string, csr []byte) ([][]byte, error) {
	people := administratorService{Service: s}
	as := func(method string) context.Context { return WithCall(ctx, Call{Principal: by, Method: method}) }
	renewed, err := people.RenewAdministrator(as(apiv1.AdministratorService_RenewAdministrator_FullMethodName), &apiv1.RenewAdministratorRequest{Administrator: name, Csr: csr})
	if !problem.Is(err, problem.NotFound) {
		return renewed.GetChain(), err
	}
	made, err := people.CreateAdministrator(as(apiv1.AdministratorService_CreateAdministrator_FullMethodName), &apiv1.CreateAdministratorRequest{Administrator: &apiv1.Administrator{Name: name}, Csr: csr})
	return made.GetChain(), err
}
