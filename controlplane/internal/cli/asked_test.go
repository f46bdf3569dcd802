package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/request"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// notDecidedOn are fields of what is frozen by which nothing is approved. Ids are not among them: names are shown.
var notDecidedOn = []string{
	"name", "kind", // of the request: its head line, and what it asks for
	"created_at", "round", // when it was begun, and how often it was submitted
	"files.dropped_at", // set long after the decision
	"files.dropped_by", // what was taken away is not among them
}

// leaf is one value of what is frozen, and how it is to be shown.
type leaf struct {
	path, shown string
	of          protoreflect.Message
	field       protoreflect.FieldDescriptor
}

// fill gives every field of a message a value of its own; of a oneof the field that is chosen.
func fill(m protoreflect.Message, at string, what protoreflect.Name, leaves *[]leaf) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() && f.Name() != what {
			continue
		}
		path, n := at+string(f.Name()), len(*leaves)
		if f.Message() != nil {
			inner := m.NewField(f)
			to := inner
			if f.IsList() {
				to = inner.List().NewElement()
			}
			ts, isTime := to.Message().Interface().(*timestamppb.Timestamp)
			if isTime {
				ts.Seconds = 1_800_000_000 + int64(n)*86400
			} else {
				fill(to.Message(), path+".", what, leaves)
			}
			if f.IsList() {
				inner.List().Append(to)
			}
			m.Set(f, inner)
			if isTime {
				*leaves = append(*leaves, leaf{path, local(ts), m, f})
			}
			continue
		}
		shown := fmt.Sprint(7000 + n)
		var v protoreflect.Value
		switch f.Kind() {
		case protoreflect.BoolKind:
			v, shown = protoreflect.ValueOfBool(true), ""
		case protoreflect.EnumKind:
			last := f.Enum().Values().Get(f.Enum().Values().Len() - 1)
			v, shown = protoreflect.ValueOfEnum(last.Number()), strings.ToLower(string(last.Name()))
		case protoreflect.Uint32Kind:
			v = protoreflect.ValueOfUint32(uint32(7000 + n))
		case protoreflect.Uint64Kind:
			v = protoreflect.ValueOfUint64(uint64(7000 + n))
		case protoreflect.BytesKind:
			v, shown = protoreflect.ValueOfBytes([]byte(shown)), fmt.Sprintf("%x", shown)
		default:
			v = protoreflect.ValueOfString(shown)
		}
		if f.IsList() {
			l := m.NewField(f)
			l.List().Append(v)
			v = l
		}
		m.Set(f, v)
		*leaves = append(*leaves, leaf{path, shown, m, f})
	}
}

// screenOf is what naru approve shows of a request that was frozen as it is.
func screenOf(t *testing.T, frozen *apiv1.Request) string {
	t.Helper()
	b, err := proto.Marshal(frozen)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(b)
	var out bytes.Buffer
	if err := (&app{err: newScreen(&out)}).showFrozen(&apiv1.Request{Name: "r-1", Frozen: b, FrozenHash: hash[:]}); err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(out.String(), "\nhash ")
	return text
}

// TestAnApproverIsShownAllThatADecisionApproves, whatever is asked for: a field that is new fails here until it is shown.
func TestAnApproverIsShownAllThatADecisionApproves(t *testing.T) {
	kinds := (&apiv1.RequestSpecification{}).ProtoReflect().Descriptor().Oneofs().ByName("what").Fields()
	looked := map[string]bool{}
	for i := range kinds.Len() {
		what := kinds.Get(i).Name()
		m := &apiv1.Request{}
		fill(m.ProtoReflect(), "", what, new([]leaf))
		if err := request.Freeze(m); err != nil {
			t.Fatal(err)
		}
		kept := &apiv1.Request{}
		if err := proto.Unmarshal(m.GetFrozen(), kept); err != nil {
			t.Fatal(err)
		}
		frozen, leaves := &apiv1.Request{}, []leaf(nil)
		fill(frozen.ProtoReflect(), "", what, &leaves)
		frozen.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			if !kept.ProtoReflect().Has(f) {
				frozen.ProtoReflect().Clear(f)
			}
			return true
		})
		screen := screenOf(t, frozen)
		for _, l := range leaves {
			name := string(l.field.Name())
			top, _, _ := strings.Cut(l.path, ".")
			if name == "id" || strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "_ids") || slices.Contains(notDecidedOn, l.path) ||
				!kept.ProtoReflect().Has(kept.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(top))) {
				continue
			}
			looked[l.path] = true
			if !strings.Contains(screen, l.shown) && !strings.Contains(strings.ReplaceAll(screen, ",", ""), l.shown) { // money is grouped
				t.Errorf("%s is approved and not shown: there is no %q in\n%s", l.path, l.shown, screen)
			}
			was := l.of.Get(l.field)
			l.of.Clear(l.field)
			if screenOf(t, frozen) == screen {
				t.Errorf("whether %s is set or not, the same is shown", l.path)
			}
			l.of.Set(l.field, was)
		}
	}
	for _, path := range []string{"title", "external_ref", "intake", "desired_start", "specification.create.ssh_keys", "specification.create.affinities.group", "specification.power.force"} {
		if !looked[path] {
			t.Errorf("%s was not looked for", path)
		}
	}
}

// What a newer server has frozen may say more than this program knows: then nobody decides with it.
func TestNothingIsDecidedOnThatThisProgramDoesNotKnow(t *testing.T) {
	ask := &apiv1.PowerVM{Vm: "web-1"}
	ask.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 900, protowire.BytesType), "and format its disk"))
	b, err := proto.Marshal(&apiv1.Request{Specification: &apiv1.RequestSpecification{What: &apiv1.RequestSpecification_Power{Power: ask}}})
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(b)
	err = (&app{err: newScreen(&bytes.Buffer{})}).showFrozen(&apiv1.Request{Name: "r-1", Frozen: b, FrozenHash: hash[:]})
	if !problem.Is(err, problem.Unsupported) || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("%v", err)
	}
}

func TestAnSSHKeyIsShownByItsFingerprintAndNoneIsHiddenBehindAnother(t *testing.T) {
	key := func(seed byte) (line, print string) {
		public, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)).Public())
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))), ssh.FingerprintSHA256(public)
	}
	ann, hers := key(1)
	eve, eves := key(2)
	if !strings.HasPrefix(hers, "SHA256:") {
		t.Fatal(hers)
	}
	for text, want := range map[string]string{
		ann + " ann@desk":            "ssh-ed25519 " + hers + ", ann@desk",
		`command="ls",no-pty ` + ann: "ssh-ed25519 " + hers + `, with command="ls",no-pty`,
		ann + " ann\n" + eve:         "ssh-ed25519 " + hers + ", ann; ssh-ed25519 " + eves,
		ann + " ann\r" + eve:         "ssh-ed25519 " + hers + ", ann; ssh-ed25519 " + eves,
		"# " + eve + "\n" + ann:      "# " + eve + "; ssh-ed25519 " + hers,
		"ssh-new AAAAB3NzaC1uZXc= x": "ssh-new AAAAB3NzaC1uZXc= x", // of a kind that is not known here
	} {
		if got := strings.Join(keysIn(text), "; "); got != want {
			t.Errorf("of %q is shown\n%s, not\n%s", text, got, want)
		}
	}
}
