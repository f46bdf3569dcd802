package service

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	"github.com/naru-project/naru/pkg/schema"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

type offeringService struct {
	apiv1.UnimplementedOfferingServiceServer
	*Service
}

func offeringChange(kind apiv1.WatchType_Value, revision string, m *apiv1.Offering) proto.Message {
	return &apiv1.WatchOfferingsResponse{Type: kind, Revision: revision, Offering: m}
}

// seesDrafts reports whether the caller is shown what nobody can ask for yet: whoever may write it.
func (s offeringService) seesDrafts(ctx context.Context, tx *state.Tx) (bool, error) {
	reach, err := s.offerings.reach(ctx, tx, "offering.update")
	return reach.Everywhere(), err
}

// offered narrows a filter to what the caller is shown.
func (s offeringService) offered(ctx context.Context, filter string) (narrowed string, err error) {
	err = s.view(ctx, func(tx *state.Tx) error {
		all, err := s.seesDrafts(ctx, tx)
		switch narrowed = "state!=DRAFT"; {
		case all:
			narrowed = filter
		case filter != "":
			narrowed += " AND " + filter
		}
		return err
	})
	return narrowed, err
}

func (s offeringService) ListOfferings(ctx context.Context, r *apiv1.ListOfferingsRequest) (*apiv1.ListOfferingsResponse, error) {
	filter, err := s.offered(ctx, r.GetFilter())
	if err != nil {
		return nil, err
	}
	r = proto.CloneOf(r)
	r.Filter = filter
	items, next, err := s.offerings.list(ctx, r, place{})
	return &apiv1.ListOfferingsResponse{Offerings: items, NextPageToken: next}, err
}

func (s offeringService) WatchOfferings(r *apiv1.WatchOfferingsRequest, stream grpc.ServerStreamingServer[apiv1.WatchOfferingsResponse]) error {
	filter, err := s.offered(stream.Context(), r.GetFilter())
	if err != nil {
		return err
	}
	r = proto.CloneOf(r)
	r.Filter = filter
	return s.offerings.watch(r, place{}, stream)
}

func (s offeringService) GetOffering(ctx context.Context, r *apiv1.GetOfferingRequest) (*apiv1.GetOfferingResponse, error) {
	var m *apiv1.Offering
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		m, err = s.shownVersion(ctx, tx, r.GetOffering(), r.GetVersion())
		return err
	})
	return &apiv1.GetOfferingResponse{Offering: m}, err
}

// shownVersion returns a version of an offering that the caller is shown; 0 is the one that can be asked for, or was last.
func (s offeringService) shownVersion(ctx context.Context, tx *state.Tx, name string, version uint32) (*apiv1.Offering, error) {
	head, err := s.offerings.find(ctx, tx, name, place{})
	if err != nil {
		return nil, err
	}
	m := head
	if version != 0 && version != head.GetVersion() {
		if m, err = s.offerings.version(tx, head, name, version); err != nil {
			return nil, err
		}
	}
	if m.GetState() == apiv1.Offering_DRAFT {
		all, err := s.seesDrafts(ctx, tx)
		switch {
		case err != nil:
			return nil, err
		case !all && version != 0:
			return nil, s.offerings.noVersion(name, version)
		case !all:
			return nil, s.offerings.notThere(name)
		}
	}
	return m, nil
}

func (s offeringService) ListOfferingVersions(ctx context.Context, r *apiv1.ListOfferingVersionsRequest) (*apiv1.ListOfferingVersionsResponse, error) {
	var items []*apiv1.Offering
	var next string
	err := s.read(ctx, func(tx *state.Tx) error {
		head, err := s.shownVersion(ctx, tx, r.GetOffering(), 0)
		if err != nil {
			return err
		}
		if head.GetState() == apiv1.Offering_DRAFT { // it is all there is
			items = []*apiv1.Offering{head}
			return nil
		}
		all, err := s.seesDrafts(ctx, tx)
		if err != nil {
			return err
		}
		var versions []*apiv1.Offering
		versions, next, err = s.offerings.versions(tx, head.GetId(), r.GetPageSize(), r.GetPageToken(), (*apiv1.Offering).GetVersion)
		items = nil
		for _, v := range versions {
			switch {
			case v.GetVersion() == head.GetVersion():
				items = append(items, head) // it says whether it is retired
			case v.GetState() != apiv1.Offering_DRAFT || all:
				items = append(items, v)
			}
		}
		return err
	})
	return &apiv1.ListOfferingVersionsResponse{Offerings: items, NextPageToken: next}, err
}

func (s offeringService) CreateOffering(ctx context.Context, r *apiv1.CreateOfferingRequest) (*apiv1.CreateOfferingResponse, error) {
	var reads []*commandv1.Read
	result, err := s.offerings.createBy(s.decideSettled, ctx, r, r.GetOffering(), func(tx *state.Tx, m *apiv1.Offering) (_ state.Scope, err error) {
		reads, err = s.resolve(ctx, tx, m)
		return nil, err
	}, whole, func(c *commandv1.Command, m *apiv1.Offering) {
		c.Body = &commandv1.Command_CreateOffering{CreateOffering: &commandv1.CreateOffering{Offering: m, Reads: reads}}
	})
	op, err := s.offerings.made(ctx, result, err)
	return &apiv1.CreateOfferingResponse{Operation: op}, err
}

// whole checks what an offering says by itself. It takes its time, so no snapshot may be held meanwhile.
func whole(_ context.Context, m *apiv1.Offering) error {
	_, err := catalog.Compile(m)
	return err
}

// UpdateOffering writes the version that is being written, which begins as the one that is published.
func (s offeringService) UpdateOffering(ctx context.Context, r *apiv1.UpdateOfferingRequest) (*apiv1.UpdateOfferingResponse, error) {
	var m *apiv1.Offering
	update := &commandv1.UpdateOffering{}
	result, err := s.decideSettled(ctx, r, func(tx *state.Tx, _ *commandv1.Command) (*commandv1.Result, error) {
		head, written, err := s.written(ctx, tx, r.GetOffering().GetId())
		if err != nil {
			return nil, err
		}
		m = proto.CloneOf(written)
		if err := schema.ApplyUpdate(m, r.GetOffering(), r.GetUpdateMask()); err != nil {
			return nil, err
		}
		if proto.Equal(written, m) {
			noun, err := proto.Marshal(written)
			return &commandv1.Result{Noun: noun}, err
		}
		update.ExpectedRevision = head.GetRevision()
		update.Reads, err = s.resolve(ctx, tx, m)
		return nil, err
	}, func(ctx context.Context, c *commandv1.Command) error {
		update.Offering = m
		c.Body = &commandv1.Command_UpdateOffering{UpdateOffering: update}
		return whole(ctx, m)
	})
	if err != nil {
		return nil, err
	}
	m, err = s.offerings.decode(result)
	return &apiv1.UpdateOfferingResponse{Offering: m}, err
}

// written returns an offering's row, and the version that is being written: the row itself where there is no other.
func (s offeringService) written(ctx context.Context, tx *state.Tx, name string) (head, written *apiv1.Offering, err error) {
	if head, err = s.offerings.find(ctx, tx, name, place{}); err != nil {
		return nil, nil, err
	}
	if err := s.offerings.matches(ctx, head); err != nil {
		return nil, nil, err
	}
	if head.GetNextVersion() == 0 {
		return head, head, nil
	}
	written, err = s.offerings.version(tx, head, name, head.GetNextVersion())
	return head, written, err
}

// PublishOffering freezes what was written with what its names stand for now.
func (s offeringService) PublishOffering(ctx context.Context, r *apiv1.PublishOfferingRequest) (*apiv1.PublishOfferingResponse, error) {
	var m *apiv1.Offering
	publish := &commandv1.PublishOffering{}
	result, err := s.decideSettled(ctx, r, func(tx *state.Tx, _ *commandv1.Command) (*commandv1.Result, error) {
		head, written, err := s.written(ctx, tx, r.GetOffering())
		if err != nil {
			return nil, err
		}
		m = proto.CloneOf(written)
		publish.ExpectedRevision = head.GetRevision()
		if publish.Reads, err = s.resolve(ctx, tx, m); err != nil {
			return nil, err
		}
		if again := head.GetState() == apiv1.Offering_RETIRED && written == head; again && !proto.Equal(m, head) {
			return nil, problem.Newf(problem.WrongState, "Write the next version: naru catalog update "+head.GetName()+".",
				"the image or a flavor of offering %s is another one by now, and version %d never changes", head.GetName(), head.GetVersion())
		}
		return nil, nil
	}, func(ctx context.Context, c *commandv1.Command) error {
		publish.Offering = m
		c.Body = &commandv1.Command_PublishOffering{PublishOffering: publish}
		return whole(ctx, m)
	})
	if err != nil {
		return nil, err
	}
	m, err = s.offerings.decode(result)
	return &apiv1.PublishOfferingResponse{Offering: m}, err
}

func (s offeringService) RetireOffering(ctx context.Context, r *apiv1.RetireOfferingRequest) (*apiv1.RetireOfferingResponse, error) {
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		head, _, err := s.written(ctx, tx, r.GetOffering())
		if err != nil {
			return nil, err
		}
		c.Body = &commandv1.Command_RetireOffering{RetireOffering: &commandv1.RetireOffering{Id: head.GetId(), ExpectedRevision: head.GetRevision()}}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	m, err := s.offerings.decode(result)
	return &apiv1.RetireOfferingResponse{Offering: m}, err
}

func (s offeringService) DeleteOffering(ctx context.Context, r *apiv1.DeleteOfferingRequest) (*apiv1.DeleteOfferingResponse, error) {
	target := &apiv1.Reference{Kind: "offering"}
	result, err := s.decide(ctx, r, func(tx *state.Tx, c *commandv1.Command) (*commandv1.Result, error) {
		head, written, err := s.written(ctx, tx, r.GetOffering())
		if err != nil {
			return nil, err
		}
		if v := r.GetVersion(); v != 0 && (v != written.GetVersion() || written.GetState() != apiv1.Offering_DRAFT) {
			return nil, problem.Newf(problem.WrongState, "naru catalog versions "+head.GetName()+" shows which one is being written.",
				"version %d of offering %s is not being written", v, head.GetName()).With("version", "is not being written")
		}
		target.Id, target.Name = head.GetId(), head.GetName()
		c.Body = &commandv1.Command_DeleteOffering{DeleteOffering: &commandv1.DeleteOffering{Id: head.GetId(), ExpectedRevision: head.GetRevision(), Draft: r.GetVersion() != 0}}
		return nil, nil
	})
	op, err := s.ended(ctx, "offering.delete", target, result, err)
	return &apiv1.DeleteOfferingResponse{Operation: op}, err
}

// resolve puts into an offering what its names stand for, and checks that they go together. It returns the versions that this
// rests on.
func (s offeringService) resolve(ctx context.Context, tx *state.Tx, m *apiv1.Offering) (reads []*commandv1.Read, err error) {
	if m.GetLease().GetDefaultDays() > 0 {
		m.Lease = request.Terms(m.GetLease())
	}
	image, err := s.images.find(ctx, tx, m.GetImage(), place{})
	if err != nil {
		return nil, inField(err, "image")
	}
	m.Image, m.ImageId, m.ImageSha256 = image.GetName(), image.GetId(), image.GetSha256()
	reads = append(reads, &commandv1.Read{Noun: reference("image", image), Revision: image.GetRevision()})
	for i, f := range m.GetFlavors() {
		flavor, err := s.flavors.find(ctx, tx, f.GetFlavor(), place{})
		if err != nil {
			return nil, inField(err, fmt.Sprintf("flavors[%d]", i))
		}
		f.Flavor, f.FlavorId = flavor.GetName(), flavor.GetId()
		f.Size = &apiv1.Resources{Cores: flavor.GetCores(), MemoryMib: flavor.GetMemoryMib(), DiskGib: flavor.GetDiskGib()}
		if err := catalog.Fits(f.GetFlavor(), f.GetSize(), image); err != nil {
			return nil, err
		}
		reads = append(reads, &commandv1.Read{Noun: reference("flavor", flavor), Revision: flavor.GetRevision()})
	}
	zones := make([]*apiv1.Zone, len(m.GetZones()))
	for i, name := range m.GetZones() {
		if zones[i], err = s.zones.find(ctx, tx, name, place{}); err != nil {
			return nil, inField(err, fmt.Sprintf("zones[%d]", i))
		}
		m.Zones[i] = zones[i].GetName()
	}
	for _, zone := range zones {
		if err := catalog.MayRunIn(m, image, zone); err != nil {
			return nil, err
		}
	}
	if m.GetApprovalPolicy() != "" {
		policy, err := s.approvalPolicies.within(tx, m.GetApprovalPolicy(), nil)
		if err != nil {
			return nil, inField(err, "approval_policy")
		}
		m.ApprovalPolicy = policy.GetName()
		reads = append(reads, &commandv1.Read{Noun: reference("approval-policy", policy), Revision: policy.GetRevision()})
	}
	return reads, nil
}

// PreviewOffering says what asking for an offering would come to.
func (s offeringService) PreviewOffering(ctx context.Context, r *apiv1.PreviewOfferingRequest) (*apiv1.PreviewOfferingResponse, error) {
	var m *apiv1.Offering
	err := s.read(ctx, func(tx *state.Tx) (err error) {
		if m, err = s.shownVersion(ctx, tx, r.GetOffering(), r.GetVersion()); err != nil || r.GetZone() == "" {
			return err
		}
		zone, err := s.zones.find(ctx, tx, r.GetZone(), place{})
		if err != nil {
			return inField(err, "zone")
		}
		image, err := tx.Images.Get(m.GetImageId())
		if errors.Is(err, state.ErrNotFound) {
			return problem.Newf(problem.WrongState, "Take a newer version.", "image %s of version %d of offering %s is gone", m.GetImage(), m.GetVersion(), m.GetName())
		}
		if err != nil {
			return err
		}
		return catalog.MayRunIn(m, image, zone)
	})
	if err != nil {
		return nil, err
	}
	if m.GetState() == apiv1.Offering_RETIRED {
		return nil, problem.Newf(problem.WrongState, "naru catalog list shows what can be asked for.", "offering %s is retired: it can no longer be asked for", m.GetName())
	}
	o, err := catalog.Compile(m)
	if err != nil {
		return nil, err
	}
	bid, err := o.Bid(catalog.Wish{Flavor: r.GetFlavor(), Quantity: r.GetQuantity(), Filled: r.GetForm(), Without: r.GetWithoutSoftware(), LeaseDays: r.GetLeaseDays()})
	if err != nil {
		return nil, err
	}
	return &apiv1.PreviewOfferingResponse{Version: m.GetVersion(), MonthlyCost: bid.Cost, Amount: bid.Amount, UserData: bid.UserData, LeaseDays: bid.LeaseDays}, nil
}
