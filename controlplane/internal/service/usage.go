package service

import (
	"cmp"
	"context"
	"errors"
	"math/big"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

type usageService struct {
	apiv1.UnimplementedUsageServiceServer
	*Service
}

// maxSums is how many sums an answer has at most.
const maxSums = 1000

// usageTable is the records in the caller's reach: of one organization and those below it, where one is named, and at a zone's edge of
// what was used in the zones of which nothing is withheld there; of that zone alone where mixed says that what is told is of no one zone.
func (s usageService) usageTable(ctx context.Context, tx *state.Tx, organization string, mixed bool) (state.Table[*apiv1.UsageRecord], error) {
	n := s.usageRecords
	table := n.table(tx)
	permission := n.permission(ctx)
	reach, err := n.reach(ctx, tx, permission)
	if err != nil {
		return table, err
	}
	var more []state.In
	if via := callOf(ctx).ViaZoneID; via != "" {
		zones := []string{via}
		if !mixed {
			if zones, err = s.whollyShown(ctx, via); err != nil {
				return table, err
			}
		}
		more = append(more, state.In{Column: "zone_id", Values: zones})
	}
	if organization != "" {
		o, err := s.organizations.within(tx, organization, nil)
		if err == nil && !reach.Everywhere() && !reach.TouchesOrganization(o.GetId()) {
			err = s.organizations.notThere(organization)
		}
		if err != nil {
			return table, err
		}
		below, err := tx.OrganizationsBelow(o.GetId())
		if err != nil {
			return table, err
		}
		slices.Sort(below)
		more = append(more, state.In{Column: "organization_id", Values: below})
	}
	bounds := n.bounds(ctx, reach, permission)
	if bounds == nil && len(more) == 0 {
		return table, nil
	}
	if bounds == nil {
		bounds = &[]state.Bound{{}}
	}
	for i, b := range *bounds {
		(*bounds)[i] = append(slices.Clip(b), more...)
	}
	return table.Within(*bounds), nil
}

// ListUsageRecords returns a page of records.
func (s usageService) ListUsageRecords(ctx context.Context, r *apiv1.ListUsageRecordsRequest) (*apiv1.ListUsageRecordsResponse, error) {
	out := &apiv1.ListUsageRecordsResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		scope, err := s.usageRecords.scope(ctx, tx, place{project: r.GetProject(), zone: r.GetZone()})
		if err != nil {
			return err
		}
		table, err := s.usageTable(ctx, tx, r.GetOrganization(), false)
		if err != nil {
			return err
		}
		filter := r.GetFilter()
		and := func(term string) {
			if filter != "" {
				filter += " AND "
			}
			filter += term
		}
		if t := r.GetFrom(); t != nil {
			and("ends_at>=" + t.AsTime().Format(time.RFC3339Nano))
		}
		if t := r.GetUntil(); t != nil {
			and("starts_at<" + t.AsTime().Format(time.RFC3339Nano))
		}
		if vm := r.GetVm(); vm != "" {
			n, err := tx.UsageCount(vm)
			if err != nil {
				return err
			}
			if n > 0 {
				and("vm_id=" + strconv.Quote(vm))
			} else {
				and("vm=" + strconv.Quote(vm))
			}
		}
		out.UsageRecords, out.NextPageToken, err = table.List(state.Query{
			Filter: filter, OrderBy: r.GetOrderBy(), PageSize: int(r.GetPageSize()), PageToken: r.GetPageToken(), Scope: scope,
		})
		return err
	})
	return out, err
}

// GetUsageRecord returns one record.
func (s usageService) GetUsageRecord(ctx context.Context, r *apiv1.GetUsageRecordRequest) (*apiv1.GetUsageRecordResponse, error) {
	out := &apiv1.GetUsageRecordResponse{}
	err := s.read(ctx, func(tx *state.Tx) error {
		table, err := s.usageTable(ctx, tx, "", false)
		if err != nil {
			return err
		}
		if out.UsageRecord, err = s.usageRecords.found(table, r.GetUsageRecord(), nil); err == nil {
			callOf(ctx).Asked.About(out.UsageRecord)
		}
		return err
	})
	return out, err
}

// sumsBy are the columns by whose values there are sums.
var sumsBy = map[apiv1.SummarizeUsageRequest_By]string{
	apiv1.SummarizeUsageRequest_BY_VM: "vm_id", apiv1.SummarizeUsageRequest_BY_PROJECT: "project_id",
	apiv1.SummarizeUsageRequest_BY_ORGANIZATION: "organization_id", apiv1.SummarizeUsageRequest_BY_ZONE: "zone_id",
}

// SummarizeUsage sums up what was used in a time, exactly. What goes on is counted up to the end of that time.
func (s usageService) SummarizeUsage(ctx context.Context, r *apiv1.SummarizeUsageRequest) (*apiv1.SummarizeUsageResponse, error) {
	q := state.UsageQuery{From: r.GetFrom().GetSeconds(), Until: time.Now().Unix(), By: sumsBy[r.GetBy()], VM: r.GetVm(), Limit: maxSums}
	if r.GetFrom().GetNanos() != 0 || r.GetUntil().GetNanos() != 0 {
		field := "from"
		if r.GetFrom().GetNanos() == 0 {
			field = "until"
		}
		return nil, problem.New(problem.Invalid, "use is counted by whole seconds", "Name a time without a fraction.").With(field, "is not a whole second")
	}
	if t := r.GetUntil(); t != nil {
		q.Until = min(q.Until, t.GetSeconds())
	}
	if r.GetFrom() != nil && q.From > q.Until {
		return nil, problem.New(problem.Invalid, "the time to sum up ends before it begins, or lies ahead", "Name an earlier beginning.").With("from", "is after the end")
	}
	out := &apiv1.SummarizeUsageResponse{From: r.GetFrom(), Until: &timestamppb.Timestamp{Seconds: q.Until}}
	var sums []*state.UsageSum
	mixed := r.GetZone() == "" && r.GetBy() != apiv1.SummarizeUsageRequest_BY_VM && r.GetBy() != apiv1.SummarizeUsageRequest_BY_ZONE
	err := s.read(ctx, func(tx *state.Tx) error {
		scope, err := s.usageRecords.scope(ctx, tx, place{project: r.GetProject(), zone: r.GetZone()})
		if err != nil {
			return err
		}
		table, err := s.usageTable(ctx, tx, r.GetOrganization(), mixed)
		if err != nil {
			return err
		}
		q.Scope = scope
		sums, err = state.SumUsage(table, q)
		return err
	})
	if errors.Is(err, state.ErrTooManySums) {
		return nil, problem.Newf(problem.TooLarge, "Ask by project, or for one project or zone.", "there are more than %d sums", maxSums)
	}
	if err != nil {
		return nil, err
	}
	if len(sums) == 0 && q.By == "" {
		sums = append(sums, &state.UsageSum{})
	}
	var here *apiv1.Zone
	if via := callOf(ctx).ViaZoneID; via != "" && mixed {
		book, err := s.zonesNow(ctx)
		if err != nil {
			return nil, err
		}
		here = book.byID[via]
	}
	for _, sum := range sums {
		out.UsageSums = append(out.UsageSums, sumOf(sum, here))
	}
	slices.SortStableFunc(out.UsageSums, func(a, b *apiv1.UsageSum) int {
		return cmp.Or(cmp.Compare(a.GetOrganization(), b.GetOrganization()), cmp.Compare(a.GetProject(), b.GetProject()), cmp.Compare(a.GetVm(), b.GetVm()), cmp.Compare(a.GetZone(), b.GetZone()))
	})
	return out, nil
}

// sumOf writes a sum as people read it; all of it is of a zone that is given.
func sumOf(s *state.UsageSum, zone *apiv1.Zone) *apiv1.UsageSum {
	c := s.Common
	out := &apiv1.UsageSum{
		Vm: c["vm"], VmId: c["vm_id"], Project: c["project"], ProjectId: c["project_id"], Organization: c["organization"], OrganizationId: c["organization_id"],
		Zone: cmp.Or(zone.GetName(), c["zone"]), ZoneId: cmp.Or(zone.GetId(), c["zone_id"]), GoingOn: s.GoingOn, Marked: s.Marked,
	}
	of := func(states ...apiv1.VM_State) *apiv1.UsageAmounts {
		var seconds, cores, memory, disk big.Int
		for _, p := range s.Parts {
			if !slices.Contains(states, p.State) {
				continue
			}
			time := big.NewInt(p.Seconds)
			add := func(sum *big.Int, n uint64) { sum.Add(sum, new(big.Int).Mul(time, new(big.Int).SetUint64(n))) }
			add(&seconds, 1)
			add(&cores, p.Cores)
			add(&memory, p.MemoryMiB)
			add(&disk, p.DiskGiB)
		}
		return &apiv1.UsageAmounts{Seconds: seconds.String(), CoreSeconds: cores.String(), MemoryMibSeconds: memory.String(), DiskGibSeconds: disk.String()}
	}
	out.Running, out.Trashed, out.Broken = of(apiv1.VM_RUNNING), of(apiv1.VM_TRASHED), of(apiv1.VM_ERROR)
	out.Allocated = of(apiv1.VM_RUNNING, apiv1.VM_STOPPED, apiv1.VM_TRASHED)
	return out
}
