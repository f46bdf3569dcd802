package schema

import (
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// nouns are the messages that have a revision and an id; each field of theirs must say who writes it.
func nouns(t *testing.T) []protoreflect.MessageDescriptor {
	var out []protoreflect.MessageDescriptor
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			if m.Fields().ByName("revision") != nil && m.Fields().ByName("id") != nil {
				out = append(out, m)
			}
		}
		return true
	})
	if len(out) < 11 {
		t.Fatalf("found only %d nouns", len(out))
	}
	return out
}

func TestEveryFieldOfEveryNounSaysWhoWritesIt(t *testing.T) {
	var check func(m protoreflect.MessageDescriptor)
	check = func(m protoreflect.MessageDescriptor) {
		if m.ParentFile().Package() != "naru.api.v1" {
			return
		}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			if Access(f) == apiv1.Access_ACCESS_UNSPECIFIED {
				t.Errorf("%s has no access annotation", f.FullName())
			}
			if f.IsMap() {
				t.Errorf("%s is a map; nouns cross the link and have none", f.FullName())
			}
			switch f.Kind() {
			case protoreflect.Int64Kind, protoreflect.Uint64Kind, protoreflect.Sint64Kind, protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
				if Access(f) != apiv1.Access_ACCESS_INTERNAL {
					t.Errorf("%s is a 64-bit integer; JSON readers lose its digits", f.FullName())
				}
			}
			if f.Message() != nil {
				check(f.Message())
			}
		}
	}
	for _, m := range nouns(t) {
		check(m)
	}
}

func validVM() *apiv1.VM {
	return &apiv1.VM{Name: "web-1", Project: "web", Zone: "business", Flavor: "s1", Image: "tiny"}
}

// TestEveryPatternIsSaidInWords: a person is told what a field takes, and not by which expression it is looked at.
func TestEveryPatternIsSaidInWords(t *testing.T) {
	found := 0
	look := func(f protoreflect.FieldDescriptor) {
		rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
		for _, pattern := range []string{rules.GetString().GetPattern(), rules.GetRepeated().GetItems().GetString().GetPattern()} {
			if pattern == "" {
				continue
			}
			found++
			if patterns[pattern] == "" {
				t.Errorf("%s: what %s asks for is not said in words", f.FullName(), pattern)
			}
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("naru.api.v1", func(file protoreflect.FileDescriptor) bool {
		var each func(protoreflect.MessageDescriptors)
		each = func(all protoreflect.MessageDescriptors) {
			for i := range all.Len() {
				for j := range all.Get(i).Fields().Len() {
					look(all.Get(i).Fields().Get(j))
				}
				each(all.Get(i).Messages())
			}
		}
		each(file.Messages())
		return true
	})
	if found < 40 {
		t.Errorf("only %d patterns were found", found)
	}
}

func TestAClientMayCreateWithItsOwnFields(t *testing.T) {
	if err := CheckCreate(validVM()); err != nil {
		t.Fatal(err)
	}
}

func TestEachWrongFieldIsNamed(t *testing.T) {
	vm := validVM()
	vm.Name, vm.Zone, vm.State = "A B", "", apiv1.VM_RUNNING
	vm.SshKeys = []string{"one\ntwo"}
	err := CheckCreate(vm)
	if !problem.Is(err, problem.Invalid) {
		t.Fatalf("got %v", err)
	}
	var named []string
	for _, f := range problem.Of(err).GetErrors() {
		named = append(named, f.GetField())
	}
	for _, want := range []string{"name", "zone", "state", "ssh_keys[0]"} {
		if !strings.Contains(strings.Join(named, " "), want) {
			t.Errorf("%s is not named in %v", want, named)
		}
	}
}

func TestAnUpdateChangesOnlyWhatTheMaskNames(t *testing.T) {
	stored := &apiv1.Host{Id: "h", Name: "kvm-1", Endpoint: "sim://", AdminState: apiv1.Host_ENABLED, Health: apiv1.Host_AVAILABLE}
	in := &apiv1.Host{Id: "kvm-1", AdminState: apiv1.Host_CORDONED, Endpoint: "sim://other"}
	if err := ApplyUpdate(stored, in, &fieldmaskpb.FieldMask{Paths: []string{"admin_state"}}); err != nil {
		t.Fatal(err)
	}
	if stored.AdminState != apiv1.Host_CORDONED || stored.Endpoint != "sim://" || stored.Health != apiv1.Host_AVAILABLE {
		t.Fatalf("got %v", stored)
	}
}

func TestAnUpdateOfWhatIsNotTheClientsIsRefusedAndLosesNothing(t *testing.T) {
	for _, path := range []string{"health", "name", "cluster", "generation", "nonsense"} {
		stored := &apiv1.Host{Id: "h", Name: "kvm-1", Endpoint: "sim://", Cluster: "kvm"}
		before := proto.Clone(stored)
		in := &apiv1.Host{Name: "other", Cluster: "c2", Health: apiv1.Host_DOWN}
		err := ApplyUpdate(stored, in, &fieldmaskpb.FieldMask{Paths: []string{"endpoint", path}})
		if !problem.Is(err, problem.Invalid) || !proto.Equal(stored, before) {
			t.Errorf("%s: %v, %v", path, err, stored)
		}
	}
}

func TestAnUpdateThatBreaksARuleIsRefused(t *testing.T) {
	stored := &apiv1.Zone{Name: "business"}
	in := &apiv1.Zone{Description: strings.Repeat("x", 2000)}
	if err := ApplyUpdate(stored, in, &fieldmaskpb.FieldMask{Paths: []string{"description"}}); !problem.Is(err, problem.Invalid) || stored.Description != "" {
		t.Fatalf("got %v", err)
	}
}

func TestNothingInternalIsLeftAfterStrip(t *testing.T) {
	vm := &apiv1.VM{Name: "a", Generation: &apiv1.Generation{Epoch: 1}, Force: true, Reached: &apiv1.Generation{Epoch: 1}}
	Strip(vm)
	if vm.Generation != nil || vm.Force || proto.Size(vm.Reached) != 0 {
		t.Fatalf("got %v", vm)
	}
}

func TestDesiredAndObservedPartANounAndMergeItAgain(t *testing.T) {
	whole := &apiv1.VM{Id: "1", Name: "a", Zone: "z", DesiredState: apiv1.VM_RUNNING, State: apiv1.VM_BUILDING, Host: "kvm-1", Power: apiv1.VM_ON}
	desired, observed := Desired(whole), Observed(whole)
	if desired.State != 0 || desired.Host != "" || desired.Zone != "z" || observed.Zone != "" || observed.DesiredState != 0 || observed.Host != "kvm-1" {
		t.Fatalf("desired %v, observed %v", desired, observed)
	}
	again := &apiv1.VM{Host: "old"}
	MergeDesired(again, desired)
	MergeObserved(again, observed)
	if !proto.Equal(again, whole) {
		t.Fatalf("got %v", again)
	}
}

func TestMergeObservedClearsWhatTheZoneNoLongerSays(t *testing.T) {
	vm := &apiv1.VM{Zone: "z", Task: apiv1.VM_STARTING}
	MergeObserved(vm, &apiv1.VM{Zone: "forged"})
	if vm.Task != 0 || vm.Zone != "z" {
		t.Fatalf("got %v", vm)
	}
}

func TestANumberThatIsNotGivenOr0IsAskedForWithTheLeastItTakes(t *testing.T) {
	err := CheckCreate(&apiv1.Flavor{Name: "bad", MemoryMib: 64, DiskGib: 1})
	if p := problem.Of(err); len(p.GetErrors()) != 1 || p.GetErrors()[0].GetField() != "cores" || p.GetErrors()[0].GetDetail() != "is required, and must be at least 1" {
		t.Errorf("no cores: %v", err)
	}
}

func TestATitleIsOneLine(t *testing.T) {
	broken := &apiv1.Group{Name: "ops", Title: "a\nb"}
	if err := CheckCreate(broken); !problem.Is(err, problem.Invalid) || problem.Of(err).GetErrors()[0].GetField() != "title" {
		t.Errorf("made: %v", err)
	}
	if err := ApplyUpdate(&apiv1.Group{Name: "ops"}, broken, &fieldmaskpb.FieldMask{Paths: []string{"title"}}); !problem.Is(err, problem.Invalid) {
		t.Errorf("changed: %v", err)
	}
	if err := ApplyUpdate(broken, &apiv1.Group{Description: "more"}, &fieldmaskpb.FieldMask{Paths: []string{"description"}}); err != nil {
		t.Errorf("one that was made before: %v", err)
	}
}
