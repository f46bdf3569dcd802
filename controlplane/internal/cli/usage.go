package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/client"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var usageColumns = []column[*apiv1.UsageRecord]{
	{head: "UNTIL", value: func(m *apiv1.UsageRecord) string { return local(m.GetEndsAt()) }},
	{head: "VM", value: (*apiv1.UsageRecord).GetVm},
	{head: "KIND", value: func(m *apiv1.UsageRecord) string { return lower(m.GetKind()) }},
	{head: "SECONDS", value: secondsOf},
	{head: "STATE", value: func(m *apiv1.UsageRecord) string { return lower(m.GetState()) }, state: true},
	{head: "SIZE", value: func(m *apiv1.UsageRecord) string { return shortSize(m.GetSize()) }},
	{head: "THEN", value: func(m *apiv1.UsageRecord) string { return lower(m.GetNextState()) }, state: true},
	{head: "PROJECT", value: (*apiv1.UsageRecord).GetProject},
	{head: "ZONE", value: (*apiv1.UsageRecord).GetZone},
	{head: "MARKS", value: func(m *apiv1.UsageRecord) string {
		var words []string
		for _, mark := range m.GetMarks() {
			words = append(words, lower(mark))
		}
		return strings.Join(words, ",")
	}},
	{head: "SINCE", value: func(m *apiv1.UsageRecord) string { return local(m.GetStartsAt()) }, wide: true},
	{head: "ORGANIZATION", value: (*apiv1.UsageRecord).GetOrganization, wide: true},
	{head: "OFFERING", value: func(m *apiv1.UsageRecord) string {
		if m.GetOffering() == "" {
			return ""
		}
		return fmt.Sprintf("%s v%d", m.GetOffering(), m.GetOfferingVersion())
	}, wide: true},
	{head: "REQUEST", value: (*apiv1.UsageRecord).GetRequest, wide: true},
	{head: "ID", value: (*apiv1.UsageRecord).GetId, wide: true},
}

// secondsOf is how long the span of a record is; below nothing where it is taken away.
func secondsOf(m *apiv1.UsageRecord) string {
	n := m.GetEndsAt().GetSeconds() - m.GetStartsAt().GetSeconds()
	if m.GetSubtracts() {
		n = -n
	}
	return strconv.FormatInt(n, 10)
}

// shortSize is cores, MiB and GiB.
func shortSize(m *apiv1.Resources) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d/%d", m.GetCores(), m.GetMemoryMib(), m.GetDiskGib())
}

var usageSumColumns = []column[*apiv1.UsageSum]{
	{head: "VM", value: (*apiv1.UsageSum).GetVm},
	{head: "PROJECT", value: (*apiv1.UsageSum).GetProject},
	{head: "ORGANIZATION", value: (*apiv1.UsageSum).GetOrganization, wide: true},
	{head: "ZONE", value: (*apiv1.UsageSum).GetZone},
	{head: "ALLOCATED_S", value: func(m *apiv1.UsageSum) string { return m.GetAllocated().GetSeconds() }},
	{head: "RUNNING_S", value: func(m *apiv1.UsageSum) string { return m.GetRunning().GetSeconds() }},
	{head: "CORE_S", value: func(m *apiv1.UsageSum) string { return m.GetRunning().GetCoreSeconds() }},
	{head: "MEMORY_MIB_S", value: func(m *apiv1.UsageSum) string { return m.GetRunning().GetMemoryMibSeconds() }},
	{head: "DISK_GIB_S", value: func(m *apiv1.UsageSum) string { return m.GetAllocated().GetDiskGibSeconds() }},
	{head: "GOES_ON", value: func(m *apiv1.UsageSum) string { return fmt.Sprint(m.GetGoingOn()) }},
	{head: "MARKED", value: func(m *apiv1.UsageSum) string { return fmt.Sprint(m.GetMarked()) }},
	{head: "TRASHED_S", value: func(m *apiv1.UsageSum) string { return m.GetTrashed().GetSeconds() }, wide: true},
	{head: "BROKEN_S", value: func(m *apiv1.UsageSum) string { return m.GetBroken().GetSeconds() }, wide: true},
	{head: "ALLOCATED_CORE_S", value: func(m *apiv1.UsageSum) string { return m.GetAllocated().GetCoreSeconds() }, wide: true},
	{head: "ALLOCATED_MEMORY_MIB_S", value: func(m *apiv1.UsageSum) string { return m.GetAllocated().GetMemoryMibSeconds() }, wide: true},
}

// period is a time that flags say.
type period struct{ from, until string }

func (p *period) flags(f *pflag.FlagSet) {
	f.StringVar(&p.from, "from", "", "only from this `time` on, like 2026-11-01T00:00:00+09:00")
	f.StringVar(&p.until, "until", "", "only before this `time`")
}

func (p *period) times() (from, until *timestamppb.Timestamp, err error) {
	for _, x := range []struct {
		flag, said string
		to         **timestamppb.Timestamp
	}{{"from", p.from, &from}, {"until", p.until, &until}} {
		if x.said == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, x.said)
		if err != nil {
			return nil, nil, usagef("--%s %s: it is a time like 2026-11-01T00:00:00+09:00", x.flag, x.said)
		}
		*x.to = timestamppb.New(at)
	}
	return from, until, nil
}

func (a *app) usage() *cobra.Command {
	var p period
	var organization string
	return command(a, noun[*apiv1.UsageRecord]{
		name: "usage", plural: "usages", short: "What VMs have used", in: []string{"project", "zone", "vm"}, filter: "kind=ended", history: true, columns: usageColumns,
		narrow: func(f *pflag.FlagSet) {
			p.flags(f)
			f.StringVar(&organization, "organization", "", "id or name of an organization: with those below it")
		},
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.UsageRecord, string, error) {
			from, until, err := p.times()
			if err != nil {
				return nil, "", err
			}
			r, err := c.Usage.ListUsageRecords(ctx, &apiv1.ListUsageRecordsRequest{
				Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token, Project: q.project, Zone: q.zone, Vm: q.vm,
				Organization: organization, From: from, Until: until,
			})
			return r.GetUsageRecords(), r.GetNextPageToken(), err
		},
		get: func(ctx context.Context, c *client.Client, name string, _ scope) (*apiv1.UsageRecord, error) {
			r, err := c.Usage.GetUsageRecord(ctx, &apiv1.GetUsageRecordRequest{UsageRecord: name})
			return r.GetUsageRecord(), err
		},
	}, a.sumUsage())
}

// sumsBy are the words for what sums are made by.
var sumsBy = map[string]apiv1.SummarizeUsageRequest_By{
	"vm": apiv1.SummarizeUsageRequest_BY_VM, "project": apiv1.SummarizeUsageRequest_BY_PROJECT,
	"organization": apiv1.SummarizeUsageRequest_BY_ORGANIZATION, "zone": apiv1.SummarizeUsageRequest_BY_ZONE, "nothing": apiv1.SummarizeUsageRequest_BY_UNSPECIFIED,
}

func (a *app) sumUsage() *cobra.Command {
	var s scope
	var p period
	var by string
	req := &apiv1.SummarizeUsageRequest{}
	cmd := &cobra.Command{
		Use: "sum", Short: "Sum up what was used in a time", Args: noArguments,
		Long: `Sum up what was used in a time, exactly: each second counts the cores, MiB and GiB that a VM had in it. What goes on is counted up to
now, or to the end of the time. Sums of times that adjoin add up to that of the whole.`,
		Example: "  naru usage sum --project web --by vm --from 2026-11-01T00:00:00+09:00 --until 2026-12-01T00:00:00+09:00",
	}
	in := []string{"project", "zone", "vm"}
	a.scopeFlags(cmd, in, &s)
	p.flags(cmd.Flags())
	cmd.Flags().StringVar(&req.Organization, "organization", "", "id or name of an organization: with those below it")
	a.completeNames(cmd, "organization", "organization")
	cmd.Flags().StringVar(&by, "by", "project", "a sum for each vm, project, organization or zone; nothing: one sum")
	a.completeWith(cmd, "by", []string{"vm", "project", "organization", "zone", "nothing"})
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		known := false
		if req.By, known = sumsBy[by]; !known {
			return usagef("--by %s: it is vm, project, organization, zone or nothing", by)
		}
		if req.From, req.Until, err = p.times(); err != nil {
			return err
		}
		return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
			a.defaults(in, &s)
			req.Project, req.Zone, req.Vm = s.project, s.zone, s.vm
			r, err := c.Usage.SummarizeUsage(ctx, req)
			if err != nil {
				return err
			}
			if a.documents() {
				return a.message(r)
			}
			in := a.inZone(ctx, c, req.GetZone())
			if len(r.GetUsageSums()) == 0 {
				fmt.Fprintf(a.err, "Nothing was used%s.\n", in)
				return nil
			}
			if in != "" {
				fmt.Fprintf(a.err, "This is what was used%s.\n", in)
			}
			return printList(a, usageSumColumns, r.GetUsageSums())
		})
	}
	return cmd
}

// inZone says of what zone alone a sum is, where no other was asked for: who acts at a zone's edge is shown what was used
// there.
func (a *app) inZone(ctx context.Context, c *client.Client, asked string) string {
	if asked != "" {
		return " in zone " + printable(asked)
	}
	who, err := c.AccessTokens.WhoAmI(ctx, &apiv1.WhoAmIRequest{})
	if err != nil || who.GetZone() == "" {
		return ""
	}
	return " in zone " + printable(who.GetZone()) + ", at whose edge this is; what was used elsewhere is shown there, and in the control network"
}
