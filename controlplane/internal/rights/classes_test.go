package rights

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// everywhereKnown are the texts in messages about zones that tell nothing of what a zone has, by the reason. Ids and revisions are
// not among them: they tell nothing by themselves.
var everywhereKnown = map[string]string{
	"a name of what is the federation's, and no zone's": `
		AccessToken.name AccessToken.project AccessToken.user AccessToken.zone Delegation.from_user Delegation.project Delegation.to_user Delegation.zone Cluster.zone AccessForTime.role CrossZone.source_zone Crossing.project Crossing.request Crossing.source_zone Crossing.zone
		Event.project Event.zone Host.zone HostSample.zone JoinRequest.zone Operation.project Operation.zone Quota.name Quota.organization Quota.project Quota.zone
		LoginProvider.loopback_redirect LoginProvider.name LoginProvider.title Problem.draft Session.identity_provider Request.name Request.organization Request.policy Request.project Request.source_zone Request.zone Session.user Session.zone Snapshot.project Snapshot.zone
		VM.project VM.zone VMSample.project VMSample.zone WhoAmIResponse.name WhoAmIResponse.project WhoAmIResponse.user WhoAmIResponse.zone Zone.broker Zone.name Zone.parent
		BeginLocalLoginResponse.zone GetLoginOptionsResponse.zone Lease.project Lease.zone Lease.request Lease.extensions Notification.Made.zone Notification.project Notification.zone Reservation.project Reservation.zone CreateVMs.flavor CreateVMs.offering CreateVMs.without_software ResizeVM.flavor Stage.calendar Stage.name VM.flavor VM.image VM.image_sha256
		VM.offering VM.request UsageRecord.offering UsageRecord.organization UsageRecord.project UsageRecord.request UsageRecord.zone UsageSum.organization UsageSum.project UsageSum.zone
		Eligibility.groups Eligibility.roles Eligibility.users Stage.excluded Stage.approvers`,
	"who did or does something": `
		AccessToken.created_by Notification.by Comment.author Comment.dropped_by Decision.acting_for Decision.actor Decision.external_approver Loss.by Operation.created_by Request.contributors Request.on_behalf_of Request.requester Session.client Crossing.created_by VM.Override.user`,
	"what people wrote who ask, for those who ask": `
		Decision.external_ref Comment.file Comment.media_type Comment.sha256 Comment.text CreateVMs.description CreateVMs.form CreateVMs.name_pattern CreateVMs.ssh_keys Crossing.reason Crossing.shortened Delegation.reason
		Request.external_ref Request.reason Request.title Snapshot.description SnapshotVM.description VM.Affinity.group VM.description VM.ssh_keys VM.user_data`,
	"what somebody says of a zone to all": `
		Zone.admin_reason Zone.description Zone.kind Cluster.purpose ZonePolicy.methods`,
	"a word of a fixed list, or a version of a program": `
		AccessForTime.permissions CrossZone.permissions Crossing.permissions Notification.Made.kind Notification.topic Notification.Parameter.key Agent.version Cluster.hypervisor Event.type Host.hypervisor_version Operation.Step.name Operation.kind Problem.code Problem.title Reference.kind Request.actions
		WhoAmIResponse.kind AuditObjection.reason Zone.Condition.reason Zone.Condition.type`,
	"a hash, a key, an id or a number": `
		Decision.delegation Decision.hash Decision.previous_hash Decision.seen_hash Decision.stage GetLoginOptionsResponse.sealing_chain GetLoginOptionsResponse.sealing_key
		GetLoginOptionsResponse.sealing_signature JoinRequest.agent JoinRequest.fingerprint Money.amount Money.currency Part.operation Part.reservation Request.frozen_hash Request.operations
		Snapshot.operation VM.operation VM.reservation Zone.incarnation Zone.sealing_key BeginLocalLoginResponse.challenge BeginLocalLoginResponse.salt`,
	"what the policy says, which is no zone's": `
		AccessForTime.condition Eligibility.condition Request.policy_trace Text.en Text.ko`,
	"the record, which is read in the control network": `
		AuditEntry.acting_for AuditEntry.action AuditEntry.actor AuditEntry.digest AuditEntry.problem_code AuditEntry.project AuditEntry.sequence
		AuditCheckpoint.note AuditCheckpoint.root AuditCheckpoint.size AuditLog.key AuditLog.name AuditLog.refused AuditLog.zone
		AuditEntry.via_zone AuditEntry.zone AuditWitness.behind AuditWitness.keys AuditWitness.lost AuditWitness.note AuditWitness.size AuditWitness.zone`,
}

// TestEveryTextInWhatTellsOfAZoneHasAClass, or a reason why it needs none: F6. A new field fails here until somebody has thought of it.
func TestEveryTextInWhatTellsOfAZoneHasAClass(t *testing.T) {
	known := map[string]bool{} // and whether it was met
	for _, names := range everywhereKnown {
		for _, n := range strings.Fields(names) {
			known[n] = false
		}
	}
	text := func(f protoreflect.FieldDescriptor) bool {
		access, _ := proto.GetExtension(f.Options(), apiv1.E_Access).(apiv1.Access)
		n := string(f.Name())
		return (f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind) && access != apiv1.Access_ACCESS_INTERNAL &&
			n != "id" && n != "revision" && !strings.HasSuffix(n, "_id") && !strings.HasSuffix(n, "_ids")
	}
	type place struct {
		of     protoreflect.FullName
		within bool
	}
	visited := map[place]bool{}
	var visit func(protoreflect.MessageDescriptor, bool)
	visit = func(d protoreflect.MessageDescriptor, within bool) {
		tells := disclosing(d)
		within = within || tells.zone != nil || tells.itself
		if visited[place{d.FullName(), within}] || d.ParentFile().Package() != "naru.api.v1" {
			return
		}
		visited[place{d.FullName(), within}] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			class, _ := proto.GetExtension(f.Options(), apiv1.E_Discloses).(apiv1.Discloses)
			if class != apiv1.Discloses_DISCLOSES_UNSPECIFIED {
				continue
			}
			if within && text(f) {
				name := strings.TrimPrefix(string(f.FullName()), "naru.api.v1.")
				if _, ok := known[name]; !ok {
					t.Errorf("%s tells something of a zone, or nothing: give it (discloses), or say here why it needs none", name)
				}
				known[name] = true
			}
			if access, _ := proto.GetExtension(f.Options(), apiv1.E_Access).(apiv1.Access); f.Message() != nil && access != apiv1.Access_ACCESS_INTERNAL {
				visit(f.Message(), within)
			}
		}
	}
	for _, m := range methods() {
		service, name, _ := strings.Cut(strings.TrimPrefix(m.Name, "/"), "/")
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatal(err)
		}
		visit(d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name)).Output(), false)
	}
	for name, met := range known {
		if !met {
			t.Errorf("%s is explained, and is in no answer about a zone, or has a class", name)
		}
	}
}

// TestF6WhatARequestWaitsForCrossesAsASentence, and a problem in an answer that names no zone as one in place of an answer.
func TestF6WhatARequestWaitsForCrossesAsASentence(t *testing.T) {
	m := &apiv1.Request{
		Name: "r-1", Zone: "business", ApprovalReason: "dan: kvm-1 is full", FulfilmentReason: "kvm-1 has 3 MiB", Frozen: []byte("all of it"), FrozenHash: []byte("h"),
		Stages: []*apiv1.Stage{{Name: "a", StateReason: "dan: kvm-1 is full", Stuck: "nobody of kvm-1"}}, Decisions: []*apiv1.Decision{{Actor: "dan", Comment: "kvm-1 is full"}},
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: &apiv1.ResizeVM{Vm: "web-1", VmId: "vm-1", Flavor: "s1", SizeBefore: &apiv1.Resources{Cores: 1}}}},
	}
	answer := &apiv1.PreviewRequestResponse{Request: m, Problem: &apiv1.Problem{Code: "NO_ROOM", Detail: "kvm-1 has 3 MiB"}}
	unplaced := 0
	Redact(answer, func(string) Shown { return Shown{Figures: true} }, func(p *apiv1.Problem) { unplaced++; RedactProblem(p) })
	want := &apiv1.PreviewRequestResponse{Problem: &apiv1.Problem{Code: "NO_ROOM"}, Request: &apiv1.Request{
		Name: "r-1", Zone: "business", FrozenHash: []byte("h"), Stages: []*apiv1.Stage{{Name: "a"}}, Decisions: []*apiv1.Decision{{Actor: "dan"}},
		Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Resize{Resize: &apiv1.ResizeVM{VmId: "vm-1", Flavor: "s1", SizeBefore: &apiv1.Resources{Cores: 1}}}},
	}}
	if !proto.Equal(answer, want) || unplaced != 1 {
		t.Errorf("%v", answer)
	}
}

// TestF6WhatTheRecordSaysCrossesAsASentence: of the zone that an entry names, and where it names none, of all zones.
func TestF6WhatTheRecordSaysCrossesAsASentence(t *testing.T) {
	m := &apiv1.ListAuditEntriesResponse{AuditEntries: []*apiv1.AuditEntry{
		{Sequence: "0", Zone: "open", Message: "kvm-1 is full"}, {Sequence: "1", Zone: "shut", Message: "kvm-2 is full"}, {Sequence: "2", Message: "kvm-3 is full"}}}
	Redact(m, func(zone string) Shown { return Shown{zone == "open", zone == "open", zone == "open"} }, func(*apiv1.Problem) {})
	if got := m.GetAuditEntries(); got[0].GetMessage() == "" || got[1].GetMessage() != "" || got[2].GetMessage() != "" {
		t.Errorf("%v", m)
	}
}
