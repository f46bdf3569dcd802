package cli

import (
	"cmp"
	"fmt"
	"math/big"
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// writer writes one line: what it is of, and what is said of that. Where nothing is said there is no line.
type writer func(of, format string, args ...any)

// askedFor writes all that an approval of a request approves, from the bytes that were frozen at its submission.
func askedFor(line writer, name string, frozen *apiv1.Request) {
	line("request", "%s  %s", name, frozen.GetTitle())
	who := frozen.GetRequester()
	if frozen.GetOnBehalfOf() != "" {
		who += " for " + frozen.GetOnBehalfOf()
	}
	line("asked by", "%s", who)
	by := lower(frozen.GetIntake())
	if frozen.GetExternalRef() != "" {
		by += ", where it is " + frozen.GetExternalRef()
	}
	line("by way of", "%s", by)
	line("written also by", "%s", strings.Join(frozen.GetContributors(), ", "))
	line("project", "%s (%s)", frozen.GetProject(), frozen.GetOrganization())
	where := cmp.Or(frozen.GetZone(), "none")
	if from := frozen.GetSourceZone(); from != "" && from != frozen.GetZone() {
		where += ", asked for in " + from
	}
	line("zone", "%s", strings.TrimSuffix(where+", "+lower(frozen.GetGrade()), ", "))
	line("change", "%s %s", lower(frozen.GetChangeType()), lower(frozen.GetRoleCluster()))
	line("reason", "%s", frozen.GetReason())
	specified(line, frozen.GetSpecification())
	if x := frozen.GetAmount(); x != nil {
		line("takes", "%s", sizeOf(x))
	}
	costs(line, frozen)
	if frozen.GetLeaseDays() > 0 {
		line("lasts", "%d days", frozen.GetLeaseDays())
	}
	line("not before", "%s", local(frozen.GetDesiredStart()))
	line("to decide by", "%s", local(frozen.GetDecideBy()))
	line("to begin by", "%s", local(frozen.GetCarryOutBy()))
	for _, x := range frozen.GetFiles() {
		line("file", "%s, %s, %d bytes, sha256 %x", x.GetFile(), cmp.Or(x.GetMediaType(), "of no kind that was said"), x.GetSize(), x.GetSha256())
		line("", "%s", strings.TrimSuffix(x.GetAuthor()+", "+local(x.GetAt())+": "+x.GetText(), ": "))
	}
	line("policy", "%s (version %d)", frozen.GetPolicy(), frozen.GetPolicyVersion())
	for _, why := range frozen.GetPolicyTrace() {
		line("", "%s", why)
	}
	if frozen.GetAuthority() != 0 {
		line("authority", "%s", lower(frozen.GetAuthority()))
	}
}

// costs writes what a request costs, and of what prolongs or changes a VM also where that is not known.
func costs(line writer, m *apiv1.Request) {
	kind := m.GetKind()
	is, was := catalog.Price(m.GetMonthlyCost()), catalog.Price(m.GetMonthlyCostBefore())
	if is == "" && (kind == apiv1.RequestKind_RESIZE || kind == apiv1.RequestKind_EXTEND || kind == apiv1.RequestKind_RESTORE) {
		is = "not known"
	}
	if was != "" {
		is += ", and " + was + " as it is" + difference(m.GetMonthlyCostBefore(), m.GetMonthlyCost())
	}
	line("costs a month", "%s", is)
	line("its days cost", "%s", catalog.Price(m.GetExtensionCost()))
}

// difference says by how much a price goes up or down, where both are known.
func difference(before, after *apiv1.Money) string {
	was, isKnown := new(big.Int).SetString(before.GetAmount(), 10)
	is, known := new(big.Int).SetString(after.GetAmount(), 10)
	if !isKnown || !known || before.GetCurrency() != after.GetCurrency() {
		return ""
	}
	d := is.Sub(is, was)
	word := "more"
	switch d.Sign() {
	case 0:
		return ": no more and no less"
	case -1:
		word = "less"
	}
	return ": " + catalog.Price(&apiv1.Money{Currency: after.GetCurrency(), Amount: d.Abs(d).String()}) + " " + word
}

// specified writes what a specification asks for.
func specified(line writer, of *apiv1.RequestSpecification) {
	what := func(format string, args ...any) { line("what", format, args...) }
	stop := func(may bool) string {
		if may {
			return "; it may be stopped for that"
		}
		return ""
	}
	switch of := of.GetWhat().(type) {
	case *apiv1.RequestSpecification_Create:
		ask := of.Create
		what("%d of %s (version %d), flavor %s, named %s", ask.GetQuantity(), ask.GetOffering(), ask.GetOfferingVersion(), ask.GetFlavor(), ask.GetNamePattern())
		line("cluster", "%s", ask.GetCluster())
		line("description", "%s", ask.GetDescription())
		line("form", "%s", ask.GetForm())
		line("without", "%s", strings.Join(ask.GetWithoutSoftware(), ", "))
		for _, x := range ask.GetAffinities() {
			line("stands", "%s, by group %s", lower(x.GetRule()), x.GetGroup())
		}
		for _, text := range ask.GetSshKeys() {
			for _, key := range keysIn(text) {
				line("SSH key", "%s", key)
			}
		}
	case *apiv1.RequestSpecification_Extend:
		what("%d days more of VM %s", of.Extend.GetDays(), of.Extend.GetVm())
	case *apiv1.RequestSpecification_Power:
		what("%s VM %s", lower(of.Power.GetVerb()), of.Power.GetVm())
		if of.Power.GetForce() {
			what("by force: its power is cut at once, and what it has not written is lost")
		}
	case *apiv1.RequestSpecification_Resize:
		ask := of.Resize
		what("resize VM %s to flavor %s%s", ask.GetVm(), ask.GetFlavor(), stop(ask.GetMayStop()))
		what("from %s to %s", sizeOf(ask.GetSizeBefore()), sizeOf(ask.GetSize()))
	case *apiv1.RequestSpecification_Snapshot:
		what("take snapshot %s of VM %s%s", of.Snapshot.GetName(), of.Snapshot.GetVm(), stop(of.Snapshot.GetMayStop()))
		line("description", "%s", of.Snapshot.GetDescription())
	case *apiv1.RequestSpecification_Restore:
		ask := of.Restore
		if ask.GetSnapshotId() == "" {
			what("take VM %s out of the trash%s", ask.GetVm(), stop(ask.GetMayStop()))
			break
		}
		what("put the disk of VM %s back to snapshot %s%s", ask.GetVm(), ask.GetSnapshot(), stop(ask.GetMayStop()))
		what("what was written to it since is lost")
	case *apiv1.RequestSpecification_Reclaim:
		what("put %s into the trash, and delete them for good after %d days", strings.Join(of.Reclaim.GetVms(), ", "), of.Reclaim.GetKeepDays())
	case *apiv1.RequestSpecification_Delete: // of records, which nobody decides on
		if of.Delete.GetSnapshot() == "" {
			what("delete VM %s for good", of.Delete.GetVm())
			break
		}
		what("delete snapshot %s of VM %s", of.Delete.GetSnapshot(), of.Delete.GetVm())
	case *apiv1.RequestSpecification_AccessForTime:
		ask := of.AccessForTime
		what("the role %s in the %s, for %d days", ask.GetRole(), lower(ask.GetScope()), ask.GetDays())
		what("it permits %s", strings.Join(ask.GetPermissions(), ", "))
		if ask.GetCondition() != "" {
			what("where %s", ask.GetCondition())
		}
		if ask.GetAtEdges() {
			what("at zones' edges too")
		}
	case *apiv1.RequestSpecification_CrossZone:
		ask := of.CrossZone
		what("let the project's people change from zone %s what they have in the zone, for %d days", ask.GetSourceZone(), ask.GetDays())
		what("by %s", strings.Join(ask.GetPermissions(), ", "))
	}
}

// keysIn are the SSH keys of a text, as people compare them: kind, fingerprint, comment, options. What is not read as a key is shown as it is.
func keysIn(text string) (keys []string) {
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp)) }) {
		key, comment, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			keys = append(keys, line)
			continue
		}
		shown := key.Type() + " " + ssh.FingerprintSHA256(key)
		if comment != "" {
			shown += ", " + comment
		}
		if len(options) > 0 {
			shown += ", with " + strings.Join(options, ",")
		}
		keys = append(keys, shown)
	}
	return keys
}

func sizeOf(x *apiv1.Resources) string {
	return fmt.Sprintf("%d cores, %d MiB, %d GiB", x.GetCores(), x.GetMemoryMib(), x.GetDiskGib())
}
