package dev

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Person is somebody of the site, who works in one network.
type Person struct {
	Name, Title, Network string
	// Role is held in a place of the scope.
	Role  string
	Scope apiv1.RoleBinding_Scope
	Place string
}

// people of the site: who asks in the internet zone, who is in charge of the project, and who administers the zones on both sides.
var people = []Person{
	{"kim", "김민수", "internet", "user", apiv1.RoleBinding_PROJECT, "web"},
	{"lee", "이서연", "internet", "reviewer", apiv1.RoleBinding_PROJECT, "web"},
	{"park", "박지훈", "internet", "zone-administrator", apiv1.RoleBinding_ZONE, "internet"},
	{"choi", "최유진", "business", "zone-administrator", apiv1.RoleBinding_ZONE, "business"},
}

func person(name string) Person {
	for _, p := range people {
		if p.Name == name {
			return p
		}
	}
	panic("there is no person " + name)
}

// letPeopleIn makes the people, and what they may do; what can be asked for, and who decides on it. Each logs in where they work.
func (s *Site) letPeopleIn(ctx context.Context, _ Options) error {
	err := s.asAdmin(ctx, func(ctx context.Context, c *client.Client) error {
		for _, p := range people {
			if _, err := c.Users.CreateUser(ctx, &apiv1.CreateUserRequest{User: &apiv1.User{Name: p.Name, Title: p.Title, Kind: apiv1.User_PERSON, Language: "ko"}}); err != nil {
				return err
			}
			if _, err := c.RoleBindings.CreateRoleBinding(ctx, &apiv1.CreateRoleBindingRequest{RoleBinding: &apiv1.RoleBinding{
				Role: p.Role, User: p.Name, Scope: p.Scope, Place: p.Place,
			}}); err != nil {
				return err
			}
		}
		if _, err := c.ApprovalPolicies.CreateApprovalPolicy(ctx, &apiv1.CreateApprovalPolicyRequest{ApprovalPolicy: bothSides}); err != nil {
			return err
		}
		if _, err := c.Offerings.CreateOffering(ctx, &apiv1.CreateOfferingRequest{Offering: webServer}); err != nil {
			return err
		}
		_, err := c.Offerings.PublishOffering(ctx, &apiv1.PublishOfferingRequest{Offering: webServer.GetName()})
		return err
	})
	if err != nil {
		return err
	}
	if err := together(ctx, people, s.logPersonIn); err != nil {
		return err
	}
	s.say.Tell("people: kim asks, lee is in charge of the project, park and choi administer the zones; offering web-server")
	return nil
}

// bothSides is the policy of the walk: the person in charge reviews, then the administrators of both zones decide, side by side.
var bothSides = &apiv1.ApprovalPolicy{
	Name: "both-sides", Title: &apiv1.Text{Ko: "담당자 검토 후 양측 승인", En: "Reviewed, then approved on both sides"}, Enabled: true,
	Stages: []*apiv1.StageTemplate{
		{
			Name: "review", Title: &apiv1.Text{Ko: "담당자 검토", En: "Review"}, Sequence: 1, Rule: apiv1.StageTemplate_ANY, CommentRequired: true,
			Eligible: &apiv1.Eligibility{Roles: []string{"reviewer"}, At: apiv1.Eligibility_PROJECT},
		},
		{
			Name: "source", Title: &apiv1.Text{Ko: "신청 존 승인", En: "Approval where it was asked"}, Sequence: 2, Rule: apiv1.StageTemplate_ANY,
			Condition: "request.crosses", Eligible: &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: apiv1.Eligibility_SOURCE},
		},
		{
			Name: "destination", Title: &apiv1.Text{Ko: "대상 존 승인", En: "Approval where it is to stand"}, Sequence: 2, Rule: apiv1.StageTemplate_ANY,
			Eligible: &apiv1.Eligibility{Roles: []string{"zone-administrator"}, At: apiv1.Eligibility_DESTINATION},
		},
	},
}

var webServer = &apiv1.Offering{
	Name: "web-server", Title: &apiv1.Text{Ko: "웹 서버", En: "Web server"}, Category: "web",
	Image: "tiny", Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1", MonthlyPrice: "30000"}}, Currency: "KRW", MonthlyPrice: "10000",
	ApprovalPolicy: "both-sides", Lease: &apiv1.LeaseTerms{DefaultDays: 90, LongestDays: 365},
	Form: `{"type":"object","required":["service_name"],"properties":{"service_name":{"type":"string","title":"서비스 이름","titles":{"ko":"서비스 이름","en":"Service name"},"pattern":"[a-z][a-z0-9-]{0,31}"}}}`,
}

// logPersonIn gives a person a password for one login, with which they log in at the edge of their zone and choose their own.
func (s *Site) logPersonIn(ctx context.Context, p Person) error {
	var first bytes.Buffer
	if err := s.naru(ctx, control.Name, &first, "user", "reset-password", p.Name); err != nil {
		return fmt.Errorf("a password for %s: %w", p.Name, err)
	}
	for _, n := range s.Networks {
		if n.Name != p.Network {
			continue
		}
		if _, err := s.writeCLI(p.Name, map[string]any{"server": n.API, "ca_file": s.path("cli", n.Name+"-ca.pem"), "project": "web"}); err != nil {
			return err
		}
	}
	own := rand.Text()
	if err := writeFile(s.path("cli", p.Name+".password"), []byte(own+"\n")); err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := s.as(ctx, p, "login", p.Name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(first.String()+strings.Repeat(own+"\n", 2)), &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s does not get in: %w: %s", p.Name, err, said.String())
	}
	return nil
}

// as is a command of a person's, whose session lies in the site's folder.
func (s *Site) as(ctx context.Context, p Person, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.program("naru"), args...)
	cmd.Env = append(os.Environ(), s.mark(), "NARU_CONFIG="+s.path("cli", p.Name+".yaml"), "XDG_STATE_HOME="+s.path("cli", p.Name))
	return cmd
}

// does runs a command of a person's.
func (s *Site) does(ctx context.Context, p Person, out io.Writer, args ...string) error {
	cmd := s.as(ctx, p, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: naru %s: %w: %s", p.Name, strings.Join(args, " "), err, said.String())
	}
	return nil
}
