package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/service/servicetest"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// counter is a desk at which ann asks for web servers and bob decides.
func counter(t *testing.T) *desk {
	d := newDesk(t)
	d.Roles()
	admin := string(d.read("admin.yaml"))
	for name, role := range map[string]string{"ann": "user", "bob": "approver"} {
		u := d.User(name, apiv1.User_PERSON)
		d.Bind("b-"+name, role, u, apiv1.RoleBinding_PROJECT, "web")
		d.write(name+".yaml", strings.Replace(admin, "token: admin", "project: web\ntoken: "+servicetest.AsUser(u), 1))
	}
	d.Do(&commandv1.Command{Body: &commandv1.Command_CreateApprovalPolicy{CreateApprovalPolicy: &commandv1.CreateApprovalPolicy{ApprovalPolicy: &apiv1.ApprovalPolicy{
		Id: "p", Name: "one-step", Enabled: true, Stages: []*apiv1.StageTemplate{{Name: "approval", Title: &apiv1.Text{Ko: "승인"}, Rule: apiv1.StageTemplate_ANY,
			Eligible: &apiv1.Eligibility{Roles: []string{"approver"}, At: apiv1.Eligibility_PROJECT}}}}}}})
	made, err := d.Admin().Offerings.CreateOffering(t.Context(), &apiv1.CreateOfferingRequest{Offering: &apiv1.Offering{
		Name: "web-server", Title: &apiv1.Text{En: "Web server", Ko: "웹 서버"}, Image: "tiny", Currency: "KRW", MonthlyPrice: "10000", Flavors: []*apiv1.OfferedFlavor{{Flavor: "s1", MonthlyPrice: "5000"}},
		Form: `{"type": "object", "required": ["host_name"], "properties": {"host_name": {"type": "string", "title": "서버 이름", "titles": {"ko": "서버 이름", "en": "Host name"}}, "port": {"type": "integer", "default": 80}}}`}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Admin().Offerings.PublishOffering(t.Context(), &apiv1.PublishOfferingRequest{Offering: made.GetOperation().GetTarget().GetId()}); err != nil {
		t.Fatal(err)
	}
	return d
}

const asks = "request create --context ann --offering web-server --zone business --quantity 2 --name 'web-##' --field host_name=shop --reason 'the old ones are full'"

func TestARequestIsMadeAttachedToListedAndApprovedAtTheCommandLine(t *testing.T) {
	d := counter(t)
	d.must(asks + " --draft")
	plan := filepath.Join(t.TempDir(), "plan.txt")
	if err := os.WriteFile(plan, []byte("the plan"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must("request attach r-1 --context ann --file " + plan)
	d.must("request submit r-1 --context ann")
	if got := d.must("request list --mine --context ann -o name"); got != "r-1\n" {
		t.Errorf("hers: %q", got)
	}
	if got := d.naru("request list --mine --context bob -o name"); got.out != "" {
		t.Errorf("his: %q", got.out)
	}
	if got := d.must("approve --context bob -o name"); got != "r-1\n" {
		t.Errorf("his queue: %q", got)
	}
	if r := naru(t.Context(), "approve r-1 --context bob", "n\n"); !strings.Contains(r.err, "whether there is room now is not known: zone business is out of reach") {
		t.Errorf("it is not said that nothing is known:\n%s", r.err)
	}
	d.Connect(d.Zone("business").GetId(), true)
	r := naru(t.Context(), "approve r-1 --context bob", "n\n")
	for _, words := range []string{"ann", "2 of web-server (version 1)", "30,000 KRW", "plan.txt", "one-step (version 1)", "approval (승인): open, takes 1 of bob", "hash", "Nothing was decided",
		"room           there is room for all of it now"} {
		if !strings.Contains(r.err, words) {
			t.Errorf("an approver is not shown %q:\n%s", words, r.err)
		}
	}
	if got := d.must("request show r-1 --context ann"); !strings.Contains(got, "there is room for all of it now") {
		t.Errorf("who asked is not told that it fits:\n%s", got)
	}
	if got := d.must("approve r-1 --yes --context bob"); !strings.Contains(got, "approved") {
		t.Error(got)
	}
}

func TestARequestSaysWhenItIsToBeDecidedAndBegun(t *testing.T) {
	d := counter(t)
	d.must(asks + " --draft --start 2026-12-01T09:00:00+09:00 --decide-by 2027-01-02T03:04:05Z --carry-out-by 2027-02-03T04:05:06Z")
	d.must("request update r-1 --context ann --decide-by 2027-01-09T03:04:05Z")
	got := d.must("request show r-1 --context ann -o yaml")
	for _, words := range []string{"2026-12-01T00:00:00", "2027-01-09T03:04:05", "2027-02-03T04:05:06"} {
		if !strings.Contains(got, words) {
			t.Errorf("it does not say %s:\n%s", words, got)
		}
	}
	if r := d.naru(asks + " --carry-out-by tomorrow"); r.code != problem.ExitUsage || !strings.Contains(r.err, "--carry-out-by tomorrow: write it as 2026-12-01T09:00:00+09:00") {
		t.Errorf("%d\n%s", r.code, r.err)
	}
	for range 2 {
		if r := d.naru(asks + " --start 2020-01-01T09:00:00+09:00"); r.code == 0 || !strings.Contains(r.err, "the start 2020-01-01T00:00:00Z is over") || !strings.Contains(r.err, "to come, or none") || strings.Contains(r.err, "draft") {
			t.Errorf("%d\n%s", r.code, r.err)
		}
	}
	d.must("request update r-1 --context ann --start 2020-01-01T09:00:00+09:00")
	if r := d.naru("request submit r-1 --context ann"); r.code == 0 || !strings.Contains(r.err, "is over") {
		t.Errorf("a draft with a start that is over is submitted: %d\n%s", r.code, r.err)
	}
	d.must("request update r-1 --context ann --start ''")
	d.must("request submit r-1 --context ann")
}

func TestAListIsTypedWithCommasOrAsJSON(t *testing.T) {
	const form = `{"type":"object","properties":{"hosts":{"type":"array","items":{"type":"string"},"default":["a","b"]}}}`
	for typed, want := range map[string]string{"x, y ,z": `hosts=["x","y","z"]`, `["x y"]`: `hosts=["x y"]`, "x": `hosts=["x"]`, "": `hosts=["a","b"]`} {
		var said bytes.Buffer
		a, d := &app{in: strings.NewReader(typed + "\n"), err: newScreen(&said)}, &draftFlags{}
		if err := a.fillForm(t.Context(), d, form); err != nil || !slices.Equal(d.form, []string{want}) || !strings.Contains(said.String(), "with commas between [a, b]: ") {
			t.Errorf("%q became %q, %v\n%s", typed, d.form, err, said.String())
		}
	}
}

func TestWhatARequestLacksIsAskedForAndWhatItComesToIsShown(t *testing.T) {
	d := counter(t)
	d.Connect(d.Zone("business").GetId(), true)
	home := t.TempDir()
	t.Setenv("HOME", home)
	walk := func(typed string, flags *draftFlags) (bool, string, error) {
		var errOut bytes.Buffer
		a := &app{in: strings.NewReader(typed), out: newScreen(&bytes.Buffer{}), err: newScreen(&errOut), names: map[string]lister{}}
		var goOn bool
		cmd := a.root()
		cmd.SetArgs([]string{"whoami", "--context", "ann"})
		whoami, _, err := cmd.Find([]string{"whoami"})
		if err != nil {
			t.Fatal(err)
		}
		whoami.RunE = func(*cobra.Command, []string) error {
			return a.run(whoami, shortLimit, func(ctx context.Context, c *client.Client) (err error) {
				goOn, err = a.walk(ctx, c, flags)
				return err
			})
		}
		err = cmd.ExecuteContext(t.Context())
		return goOn, errOut.String(), err
	}
	flags := &draftFlags{scope: scope{project: "web"}}
	inTheLanguage(t, "en_US.UTF-8")
	goOn, said, err := walk("web-sever\nweb-server\nmars\nbusiness\n\nshop\n\nweb-##\nno key\n\nmany\n2\nthe old ones are full\ny\n", flags)
	if err != nil || !goOn {
		t.Fatalf("%v, %v\n%s", goOn, err, said)
	}
	if flags.offering != "web-server" || flags.zone != "business" || flags.name != "web-##" || flags.quantity != 2 || len(flags.keys) != 0 || strings.Join(flags.form, " ") != `host_name="shop" port=80` {
		t.Errorf("%+v", flags)
	}
	for _, words := range []string{"Web server", "web-sever is none of these", "mars is none of these", "Zone (", "no key is no public SSH key", "many is no number", "Host name: Host name: ", "port [80]: ", "30,000 KRW", "there is room for all of it now", "approval: bob", "Submit it?"} {
		if !strings.Contains(said, words) {
			t.Errorf("it does not say %q:\n%s", words, said)
		}
	}
	if goOn, said, err := walk("\nbusiness\nshop\n\nweb\n\n\nfull\nn\nn\n", &draftFlags{scope: scope{project: "web"}}); err != nil || goOn || !strings.Contains(said, "Nothing was asked for") {
		t.Errorf("no was taken for yes: %v\n%s", err, said)
	}
	flags = &draftFlags{scope: scope{project: "web"}}
	if goOn, _, err := walk("\nbusiness\nshop\n\nweb\n\n\nfull\nn\ny\n", flags); err != nil || !goOn || !flags.draft {
		t.Errorf("what is not to be submitted is not kept: %v", err)
	}
	inTheLanguage(t, "ko_KR.UTF-8")
	if _, said, _ := walk("web-server\nbusiness\nshop\n", &draftFlags{scope: scope{project: "web"}}); !strings.Contains(said, "웹 서버") || !strings.Contains(said, "서버 이름: ") {
		t.Errorf("it is not in the reader's language:\n%s", said)
	}
	inTheLanguage(t, "en_US.UTF-8")
	// What cannot be is asked for again, and nothing else is.
	flags = &draftFlags{scope: scope{project: "web"}}
	goOn, said, err = walk("\nbusiness\nshop\n\n../../etc\n\n\nfull\nweb-1\ny\n", flags)
	if err != nil || !goOn || flags.name != "web-1" || !strings.Contains(said, "takes 1 to 63 lower-case letters") {
		t.Errorf("%v, %v, %q\n%s", goOn, err, flags.name, said)
	}
	flags = &draftFlags{scope: scope{project: "web"}}
	goOn, said, err = walk("\nbusiness\nshop\nmany\nweb-1\n\n\nfull\n\ny\n", flags)
	if err != nil || !goOn || !slices.Contains(flags.form, `host_name="shop"`) || strings.Count(said, "Host name: ") != 1 || strings.Count(said, "port [80]: ") != 2 {
		t.Errorf("%v, %v, %q\n%s", goOn, err, flags.form, said)
	}
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFTu8MAWgSuSgVAoPJZ1DSFTjJGUuZn8cLgFv5TnZtdP ann@desk"
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".ssh"), 0o700), os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519.pub"), []byte(key+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	flags = &draftFlags{scope: scope{project: "web"}}
	if _, said, err := walk("web-server\nbusiness\nshop\n\nweb\n\n\nfull\ny\n", flags); err != nil || len(flags.keys) != 1 || flags.keys[0] != key {
		t.Errorf("her own key is not offered: %v, %v\n%s", flags.keys, err, said)
	}
	if _, _, err := walk("web-server\n", &draftFlags{scope: scope{project: "web"}}); err == nil {
		t.Error("the end of the input was taken for an answer")
	}
}

// What is refused at its submission for what may change is not lost, and is kept once, however often it is tried; of what is
// wrong in itself nothing is kept. What is returned is mended in place, by flags or by what show shows.
func TestADraftAndWhatWasReturnedAreChangedAtTheCommandLine(t *testing.T) {
	d := counter(t)
	for range 3 {
		if r := d.naru(strings.Replace(asks, "host_name=shop", "port=80", 1)); r.code == 0 || !strings.Contains(r.err, "host_name") || strings.Contains(r.err, "draft") {
			t.Fatalf("%d\n%s", r.code, r.err)
		}
	}
	if got := d.must("request list --context ann -o name"); got != "" {
		t.Errorf("of what was wrong is kept %s", got)
	}
	d.must("quota set --project web --vms 1")
	for range 3 {
		r := d.naru(asks + " --field port=80")
		if r.code == 0 || !strings.Contains(r.err, "kept as the draft r-1") || !strings.Contains(r.err, "naru request update r-1") {
			t.Fatalf("%d\n%s", r.code, r.err)
		}
	}
	if r := d.naru(strings.Replace(asks, "--quantity 2", "--quantity 3", 1)); !strings.Contains(r.err, "kept as the draft r-2") {
		t.Errorf("what is something else: %s", r.err)
	}
	d.must("request delete r-2 --context ann")
	d.must("request update r-1 --context ann --field host_name=shop --quantity 1 --reason 'one is enough'")
	d.must("request submit r-1 --context ann")
	d.must("approve r-1 --context bob --return --comment 'under which name?'")
	if r := d.naru("request update r-1 --context ann"); r.code != problem.ExitUsage || !strings.Contains(r.err, "nothing to change") {
		t.Errorf("%d\n%s", r.code, r.err)
	}
	if r := d.naru("request update r-1 --context bob --quantity 9"); r.code == 0 {
		t.Error("an approver changed what is asked for")
	}
	shown := filepath.Join(t.TempDir(), "r.yaml")
	text := d.must("request show r-1 --context ann -o yaml")
	if err := os.WriteFile(shown, []byte(strings.Replace(text, "name_pattern: web-##", "name_pattern: shop-##", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must("request update r-1 --context ann -f " + shown)
	again := d.must("request show r-1 --context ann -o yaml")
	for _, words := range []string{"name_pattern: shop-##", "reason: one is enough", `"port":80`, `"host_name":"shop"`} {
		if !strings.Contains(again, words) {
			t.Errorf("it does not say %s:\n%s", words, again)
		}
	}
	d.must("request create --context ann --draft -f " + shown)
	if got := d.must("request show r-3 --context ann -o yaml"); !strings.Contains(got, "name_pattern: shop-##") {
		t.Errorf("made of what was shown:\n%s", got)
	}
}

func TestWhatWasSaidAndAddedIsReadAtTheCommandLine(t *testing.T) {
	d := counter(t)
	d.must(asks + " --draft")
	folder := t.TempDir()
	plan, to := filepath.Join(folder, "plan.txt"), filepath.Join(folder, "got.txt")
	if err := os.WriteFile(plan, []byte("the plan"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.must("request attach r-1 --context ann --file " + plan)
	d.must("request submit r-1 --context ann")
	d.must("request comment r-1 --context bob --text 'since \x1b[31mwhen?'")
	if got := d.must("request comments r-1 --context ann"); !strings.Contains(got, "when?") || !strings.Contains(got, "plan.txt") || strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
	if r := naru(t.Context(), "approve r-1 --context bob", "n\n"); !strings.Contains(r.err, "bob, ") || !strings.Contains(r.err, "when?") {
		t.Errorf("an approver is not shown what was said:\n%s", r.err)
	}
	if got := d.must("request attachment r-1 plan.txt --context bob"); got != "the plan" {
		t.Errorf("%q", got)
	}
	d.must("request attachment r-1 plan.txt --context bob --to " + to)
	if r := d.naru("request attachment r-1 plan.txt --context bob --to " + to); r.code != problem.ExitUsage {
		t.Error("a file was overwritten")
	}
	if r := d.naru("request attachment r-1 other.txt --context bob"); r.code != problem.ExitUsage || !strings.Contains(r.err, "plan.txt") {
		t.Errorf("%d\n%s", r.code, r.err)
	}
}

func TestAFileIsTakenAwayAndReplacedAtTheCommandLine(t *testing.T) {
	d := counter(t)
	d.must(asks + " --draft")
	plan := filepath.Join(t.TempDir(), "plan.txt")
	write := func(content string) {
		if err := os.WriteFile(plan, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the wrong plan")
	d.must("request attach r-1 --context ann --file " + plan)
	write("the plan")
	if r := d.naru("request attach r-1 --context ann --file " + plan); r.code != problem.ExitConflict || !strings.Contains(r.err, "naru request detach r-1 FILE") {
		t.Errorf("%d\n%s", r.code, r.err)
	}
	d.must("request detach r-1 plan.txt --context ann")
	if r := d.naru("request attachment r-1 plan.txt --context ann"); r.code != problem.ExitUsage || !strings.Contains(r.err, "has no files") {
		t.Errorf("%d\n%s", r.code, r.err)
	}
	d.must("request attach r-1 --context ann --file " + plan)
	if got := d.must("request comments r-1 --context ann"); !strings.Contains(got, "plan.txt, taken away by ann") {
		t.Errorf("%s", got)
	}
	if got := d.must("request attachment r-1 plan.txt --context ann"); got != "the plan" {
		t.Errorf("%q", got)
	}
	if r := d.naru("request detach r-1 plan.pdf --context ann"); r.code != problem.ExitNotFound {
		t.Errorf("%d\n%s", r.code, r.err)
	}
}

func TestAFieldThatIsGivenTwiceIsRefused(t *testing.T) {
	d := counter(t)
	d.must(asks + " --draft")
	for _, command := range []string{asks, "request update r-1 --context ann --field host_name=a"} {
		if r := d.naru(command + " --field host_name=b"); r.code != problem.ExitUsage || !strings.Contains(r.err, "--field host_name is given twice") {
			t.Errorf("%s: %d\n%s", command, r.code, r.err)
		}
	}
}

func TestTimesThatAreOverAreRefusedByTheirFlags(t *testing.T) {
	d := counter(t)
	for flags, said := range map[string]string{
		"--decide-by 2020-01-01T00:00:00Z":                                 "--decide-by: is over",
		"--carry-out-by 2020-01-01T00:00:00Z":                              "--carry-out-by: is over",
		"--start 2127-01-01T00:00:00Z --carry-out-by 2126-12-31T00:00:00Z": "--carry-out-by: is not after the start",
	} {
		if r := d.naru(asks + " " + flags); r.code != problem.ExitUsage || !strings.Contains(r.err, said) {
			t.Errorf("%s: %d\n%s", flags, r.code, r.err)
		}
	}
}

func TestAnApproverIsToldWhatRoomIsKept(t *testing.T) {
	until := timestamppb.New(time.Date(2026, 11, 23, 9, 0, 0, 0, time.Local))
	held := func(m *apiv1.Reservation) *apiv1.Request {
		m.State, m.HoldUntil = apiv1.Reservation_HELD, until
		return &apiv1.Request{Fulfilment: apiv1.Request_RESERVED, Holds: []*apiv1.Reservation{m}}
	}
	for want, m := range map[string]*apiv1.Request{
		"kept for 2 in cluster kvm, until 2026-11-23 09:00:00": held(&apiv1.Reservation{Quantity: 2, Cluster: "kvm"}),
		"kept for 2, until 2026-11-23 09:00:00":                held(&apiv1.Reservation{Quantity: 2}), // where names are not shown
		"kept for VM web-1 to grow by 1 cores, 1024 MiB, 0 GiB, until 2026-11-23 09:00:00": held(&apiv1.Reservation{
			Quantity: 1, Cluster: "kvm", Vm: "web-1", VmId: "id", Size: &apiv1.Resources{Cores: 1, MemoryMib: 1024}}),
		"not kept yet: zone business has no room for it": {Fulfilment: apiv1.Request_RESERVING, FulfilmentReason: "zone business has no room for it",
			Holds: []*apiv1.Reservation{{State: apiv1.Reservation_REFUSED, Quantity: 1}}},
	} {
		if got := strings.Join(roomOf(m), "; "); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
}

func TestAnApproverIsToldWhetherItFitsNow(t *testing.T) {
	for want, m := range map[string]*apiv1.Fit{
		"there is room for all of it now":                                                             {Answer: apiv1.Fit_YES},
		"there is no room for all of it now: 2 hosts looked at: 2 lack memory":                        {Answer: apiv1.Fit_NO, Problem: &apiv1.Problem{Detail: "2 hosts looked at: 2 lack memory"}},
		"there is no room for all of it now":                                                          {Answer: apiv1.Fit_NO}, // where figures are shown, and names are not
		"whether there is room now is not known: zone business is cut off since 2026-11-22T09:00:00Z": {Answer: apiv1.Fit_NOT_KNOWN, Problem: &apiv1.Problem{Detail: "zone business is cut off since 2026-11-22T09:00:00Z"}},
		"whether there is room now is not shown here":                                                 {},
		"there is room for all of it now; of the 16 cores, 64 MiB, 9 GiB that are free in cluster kvm it leaves 1 cores, 2 MiB, 3 GiB": {Answer: apiv1.Fit_YES, Clusters: []*apiv1.ClusterRoom{
			{Cluster: "kvm", Free: &apiv1.Resources{Cores: 16, MemoryMib: 64, DiskGib: 9}, Left: &apiv1.Resources{Cores: 1, MemoryMib: 2, DiskGib: 3}}, {Cluster: "far"},
		}},
	} {
		if got := strings.Join(roomOf(&apiv1.Request{Fit: m}), "; "); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	kept := &apiv1.Request{Fulfilment: apiv1.Request_RESERVED, Fit: &apiv1.Fit{Answer: apiv1.Fit_YES},
		Holds: []*apiv1.Reservation{{State: apiv1.Reservation_HELD, Quantity: 2, HoldUntil: timestamppb.New(time.Now())}}}
	if got := roomOf(kept); len(got) != 1 || !strings.HasPrefix(got[0], "kept for 2") {
		t.Errorf("of what is kept it says %q", got)
	}
}
