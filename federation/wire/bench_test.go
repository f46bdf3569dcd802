package wire

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// chunk is a piece of desired state with n VMs.
func chunk(n int) *linkv1.StateChunk {
	c := &linkv1.StateChunk{Epoch: 1763000000, After: 1000, Through: uint64(1000 + n)}
	for i := range n {
		c.Objects = append(c.Objects, &linkv1.Object{Revision: uint64(1001 + i), Noun: &linkv1.Object_Vm{Vm: vm(i)}})
	}
	return c
}

func vm(i int) *apiv1.VM {
	return &apiv1.VM{
		Id: fmt.Sprintf("0192f0c1-2d3e-7f40-8a5b-%012d", i), Name: fmt.Sprintf("web-%d", i), Project: "web", ProjectId: "0192f0c1-2d3e-7f40-8a5b-000000000001",
		Zone: "business", ZoneId: "0192f0c1-2d3e-7f40-8a5b-000000000002", Cluster: "kvm", Flavor: "s1", Image: "tiny",
		Size: &apiv1.Resources{Cores: 2, MemoryMib: 2048, DiskGib: 10}, SshKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ user@host"},
		State: apiv1.VM_RUNNING, Power: apiv1.VM_ON, Generation: &apiv1.Generation{Epoch: 1763000000, Index: 77},
		CreatedAt: &timestamppb.Timestamp{Seconds: 1763000000, Nanos: 5}, Revision: "1763000000-77",
	}
}

func marshal(b testing.TB, m proto.Message) []byte {
	out, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

func BenchmarkFormOfChunk(b *testing.B) {
	data := marshal(b, chunk(64))
	form, err := Compile((&linkv1.StateChunk{}).ProtoReflect().Descriptor())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := form.Check(data); err != nil {
			b.Fatal(err)
		}
	}
}

// The reference beside it: what decoding the same bytes costs.
func BenchmarkUnmarshalOfChunk(b *testing.B) {
	data := marshal(b, chunk(64))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := proto.Unmarshal(data, &linkv1.StateChunk{}); err != nil {
			b.Fatal(err)
		}
	}
}

// S7: a broker's share of one call, request and response.
func BenchmarkCheckOfCallAtBroker(b *testing.B) { benchmarkCall(b, AtBroker) }

func BenchmarkCheckOfCallAtEnd(b *testing.B) { benchmarkCall(b, AtEnd) }

func benchmarkCall(b *testing.B, seat Seat) {
	checker, err := NewChecker(seat)
	if err != nil {
		b.Fatal(err)
	}
	const method = "/naru.api.v1.VMService/GetVM"
	shown := vm(1)
	shown.Generation = nil
	request := frame(b, linkv1.Type_CALL_REQUEST, linkv1.Direction_UP, &linkv1.CallRequest{
		Call: 7, Method: method, Body: marshal(b, &apiv1.GetVMRequest{Vm: "web-1", Project: "web"}), DeadlineMs: 30000,
		SealedCredential: make([]byte, 80), Language: "ko", TraceId: "4bf92f3577b34da6a3ce929d0e0e4736", Credit: 1,
	})
	response := frame(b, linkv1.Type_CALL_RESPONSE, linkv1.Direction_DOWN, &linkv1.CallResponse{
		Call: 7, Method: method, Body: marshal(b, &apiv1.GetVMResponse{Vm: shown}), End: true, Etag: "1763000000-77",
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, r := checker.Check(request, linkv1.Direction_UP); r != nil {
			b.Fatal(r)
		}
		if _, r := checker.Check(response, linkv1.Direction_DOWN); r != nil {
			b.Fatal(r)
		}
	}
}

func BenchmarkCheckOfChunkAtBroker(b *testing.B) {
	checker, err := NewChecker(AtBroker)
	if err != nil {
		b.Fatal(err)
	}
	f := frame(b, linkv1.Type_STATE_CHUNK, linkv1.Direction_DOWN, chunk(64))
	b.SetBytes(int64(len(f.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		if _, r := checker.Check(f, linkv1.Direction_DOWN); r != nil {
			b.Fatal(r)
		}
	}
}

// frame wraps a payload as its sender would, with a tag that nobody here can judge.
func frame(b testing.TB, t linkv1.Type, d linkv1.Direction, m proto.Message) *linkv1.Frame {
	f := &linkv1.Frame{Session: make([]byte, sessionSize), Direction: d, Counter: 5, Type: t, Payload: marshal(b, m)}
	if !rows()[t].untagged {
		f.Tag = make([]byte, tagSize)
	}
	return f
}
