package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var quotaColumns = []column[*apiv1.Quota]{
	{head: "NAME", value: (*apiv1.Quota).GetName},
	{head: "VMS", value: shareOf(func(m *apiv1.Amounts) *uint32 { return m.Vms })},
	{head: "CORES", value: shareOf(func(m *apiv1.Amounts) *uint32 { return m.Cores })},
	{head: "MEMORY_MIB", value: shareOf(func(m *apiv1.Amounts) *uint32 { return m.MemoryMib })},
	{head: "DISK_GIB", value: shareOf(func(m *apiv1.Amounts) *uint32 { return m.DiskGib })},
	{head: "SNAPSHOTS", value: shareOf(func(m *apiv1.Amounts) *uint32 { return m.Snapshots })},
	{head: "ID", value: (*apiv1.Quota).GetId, wide: true},
	{head: "AGE", value: func(m *apiv1.Quota) string { return age(m.GetCreatedAt()) }, wide: true},
}

// withheld reports whether what is used of a quota is not shown here: a zone that it counts keeps that to itself.
func withheld(m *apiv1.Quota) bool { return m.GetUsed() == nil && m.GetHeld() == nil }

// shareOf is what is used, with what is held, of a limit: "7+2/10"; "?/10" where that is not shown here, "-" where there is no limit.
func shareOf(of func(*apiv1.Amounts) *uint32) func(*apiv1.Quota) string {
	number := func(m *apiv1.Amounts) uint32 {
		if m == nil || of(m) == nil {
			return 0
		}
		return *of(m)
	}
	return func(m *apiv1.Quota) string {
		if m.GetLimit() == nil || of(m.GetLimit()) == nil {
			return "-"
		}
		if withheld(m) {
			return "?/" + strconv.FormatUint(uint64(number(m.GetLimit())), 10)
		}
		used := strconv.FormatUint(uint64(number(m.GetUsed())), 10)
		if held := number(m.GetHeld()); held > 0 {
			used += "+" + strconv.FormatUint(uint64(held), 10)
		}
		return used + "/" + strconv.FormatUint(uint64(number(m.GetLimit())), 10)
	}
}

// share says of one quota, in a line, what is used, held and left of it.
func share(m *apiv1.Quota) string {
	var said []string
	for _, x := range []struct {
		unit string
		of   func(*apiv1.Amounts) *uint32
		left uint32
	}{
		{"VMs", func(m *apiv1.Amounts) *uint32 { return m.Vms }, m.GetLeft().GetVms()},
		{"cores", func(m *apiv1.Amounts) *uint32 { return m.Cores }, m.GetLeft().GetCores()},
		{"MiB", func(m *apiv1.Amounts) *uint32 { return m.MemoryMib }, m.GetLeft().GetMemoryMib()},
		{"GiB", func(m *apiv1.Amounts) *uint32 { return m.DiskGib }, m.GetLeft().GetDiskGib()},
		{"snapshots", func(m *apiv1.Amounts) *uint32 { return m.Snapshots }, m.GetLeft().GetSnapshots()},
	} {
		switch s := shareOf(x.of)(m); {
		case s == "-":
		case withheld(m):
			said = append(said, strings.TrimPrefix(s, "?/")+" "+x.unit)
		default:
			said = append(said, fmt.Sprintf("%s %s (%d left)", s, x.unit, x.left))
		}
	}
	if withheld(m) {
		return m.GetName() + ": of " + strings.Join(said, ", ") + "; what is used is not shown here"
	}
	return m.GetName() + ": " + strings.Join(said, ", ")
}

func (a *app) quotaNoun() noun[*apiv1.Quota] {
	return noun[*apiv1.Quota]{
		name: "quota", plural: "quotas", short: "How much projects and organizations may use", in: []string{"project"}, filter: "zone=business", columns: quotaColumns,
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.Quota, string, error) {
			r, err := c.Quotas.ListQuotas(ctx, &apiv1.ListQuotasRequest{Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token, Project: q.project})
			return r.GetQuotas(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Quota, error) {
			r, err := c.Quotas.GetQuota(ctx, &apiv1.GetQuotaRequest{Quota: name})
			return r.GetQuota(), err
		},
		watch: func(ctx context.Context, c *client.Client, q query, after string) (func() (change[*apiv1.Quota], error), error) {
			s, err := c.Quotas.WatchQuotas(ctx, &apiv1.WatchQuotasRequest{After: after, Filter: q.filter, Project: q.project})
			return client.Changes(s, err, func(m *apiv1.WatchQuotasResponse) change[*apiv1.Quota] {
				return change[*apiv1.Quota]{Type: m.GetType(), Revision: m.GetRevision(), Noun: m.GetQuota()}
			})
		},
		remove: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.Operation, error) {
			r, err := c.Quotas.DeleteQuota(ctx, &apiv1.DeleteQuotaRequest{Quota: name})
			return r.GetOperation(), err
		},
	}
}

func (a *app) quota() *cobra.Command {
	return command(a, a.quotaNoun(), a.setQuota())
}

// setQuota makes a quota, or changes the limits that are given of the one there is.
func (a *app) setQuota() *cobra.Command {
	m := &apiv1.Quota{}
	var grade string
	limits := map[string]*string{"vms": new(string), "cores": new(string), "memory-mib": new(string), "disk-gib": new(string), "snapshots": new(string)}
	cmd := &cobra.Command{
		Use: "set", Short: "Limit a project or an organization, or change a limit", Args: noArguments,
		Long: `Limit a project, or all projects of an organization and of those below it together: everywhere, or only in a zone, or only what is of a
grade. Limits that are not given stay as they are; "none" takes one away.`,
		Example: "  naru quota set --project web --vms 20 --cores 80\n  naru quota set --organization moi --zone business --disk-gib 10000",
	}
	f := cmd.Flags()
	f.StringVar(&m.Project, "project", "", "id or name of the project")
	f.StringVar(&m.Organization, "organization", "", "id or name of the organization")
	f.StringVar(&m.Zone, "zone", "", "only what stands in this zone")
	f.StringVar(&grade, "grade", "", "only what is of this grade: open, sensitive, classified")
	for name, what := range map[string]string{"vms": "VMs", "cores": "virtual cores", "memory-mib": "memory in MiB", "disk-gib": "disk in GiB", "snapshots": "snapshots"} {
		f.StringVar(limits[name], name, "", "at most so many `n`: "+what+"; none for no bound")
	}
	a.completeNames(cmd, "project", "project")
	a.completeNames(cmd, "organization", "organization")
	a.completeNames(cmd, "zone", "zone")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (m.GetProject() == "") == (m.GetOrganization() == "") {
			return usagef("a quota is of a project or of an organization: give --project or --organization")
		}
		if grade != "" {
			n, known := apiv1.Zone_Grade_value[strings.ToUpper(grade)]
			if !known || n == 0 {
				return usagef("--grade %s: it is open, sensitive or classified", grade)
			}
			m.Grade = apiv1.Zone_Grade(n)
		}
		m.Limit = &apiv1.Amounts{}
		given := map[protoreflect.Name]bool{}
		for _, x := range []struct {
			flag string
			name protoreflect.Name
			to   **uint32
		}{
			{"vms", "vms", &m.Limit.Vms}, {"cores", "cores", &m.Limit.Cores}, {"memory-mib", "memory_mib", &m.Limit.MemoryMib},
			{"disk-gib", "disk_gib", &m.Limit.DiskGib}, {"snapshots", "snapshots", &m.Limit.Snapshots},
		} {
			said := *limits[x.flag]
			if said == "" {
				continue
			}
			given[x.name] = true
			if said == "none" {
				continue
			}
			n, err := strconv.ParseUint(said, 10, 32)
			if err != nil {
				return usagef("--%s %s: it is a whole number, or none", x.flag, said)
			}
			most := uint32(n)
			*x.to = &most
		}
		if len(given) == 0 {
			return usagef("say what is limited: --vms, --cores, --memory-mib, --disk-gib or --snapshots")
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			r, err := c.Quotas.CreateQuota(ctx, &apiv1.CreateQuotaRequest{Quota: m})
			name := r.GetOperation().GetTarget().GetName()
			if problem.Is(problem.FromStatus(err), problem.NameTaken) {
				name, err = changeQuota(ctx, c, m, given)
			}
			if err != nil {
				return err
			}
			got, err := c.Quotas.GetQuota(ctx, &apiv1.GetQuotaRequest{Quota: name})
			if err != nil {
				return err
			}
			return printOne(a, got.GetQuota(), quotaColumns)
		})
	}
	return cmd
}

// changeQuota changes the limits that were given of a quota that is there, and returns its name.
func changeQuota(ctx context.Context, c *client.Client, m *apiv1.Quota, given map[protoreflect.Name]bool) (string, error) {
	was, err := quotaLike(ctx, c, m)
	if err != nil {
		return "", err
	}
	limit := was.GetLimit().ProtoReflect()
	for _, f := range fieldsOf(limit.Descriptor()) {
		switch {
		case given[f.Name()] && m.GetLimit().ProtoReflect().Has(f):
			limit.Set(f, m.GetLimit().ProtoReflect().Get(f))
		case given[f.Name()]:
			limit.Clear(f)
		}
	}
	_, err = c.Quotas.UpdateQuota(ifMatch(ctx, was.GetRevision()), &apiv1.UpdateQuotaRequest{
		Quota: &apiv1.Quota{Id: was.GetId(), Limit: was.GetLimit()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"limit"}}})
	return was.GetName(), err
}

// quotaLike is the quota that there is of what m names, which may be by ids.
func quotaLike(ctx context.Context, c *client.Client, m *apiv1.Quota) (*apiv1.Quota, error) {
	for token := ""; ; {
		r, err := c.Quotas.ListQuotas(ctx, &apiv1.ListQuotasRequest{PageSize: 1000, PageToken: token, Project: m.GetProject()})
		if err != nil {
			return nil, err
		}
		for _, q := range r.GetQuotas() {
			of := m.GetProject() != "" || q.GetOrganization() == m.GetOrganization() || q.GetOrganizationId() == m.GetOrganization()
			if of && (q.GetZone() == m.GetZone() || q.GetZoneId() == m.GetZone()) && q.GetGrade() == m.GetGrade() {
				return q, nil
			}
		}
		if token = r.GetNextPageToken(); token == "" {
			return nil, problem.New(problem.Conflict, "the quota was deleted meanwhile", "Try again.")
		}
	}
}
