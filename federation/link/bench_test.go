package link

import (
	"context"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// shown is a VM as a call's answer has it.
func shown() *apiv1.VM {
	return &apiv1.VM{
		Id: zoneID, Name: "web-1", Project: "web", ProjectId: zoneID, Zone: "business", ZoneId: zoneID, Cluster: "kvm", Flavor: "s1",
		Image: "tiny", Size: &apiv1.Resources{Cores: 2, MemoryMib: 2048, DiskGib: 10}, State: apiv1.VM_RUNNING, Power: apiv1.VM_ON,
		Host: "kvm-1", Address: "10.91.2.10", CreatedAt: &timestamppb.Timestamp{Seconds: 1763000000}, Revision: "1763000000-77",
	}
}

// S7, the link's share: a call's request and its answer, each encoded and tagged, checked as a broker does, verified,
// checked and decoded at the far end. Without streams, goroutines and TLS.
func BenchmarkFramesOfACall(b *testing.B) {
	own, _, _ := ephemeral()
	other, _, _ := ephemeral()
	keys := must(newSecrets(own, other.PublicKey().Bytes(), []byte("transcript")))
	far := must(newSecrets(other, own.PublicKey().Bytes(), []byte("transcript")))
	session := make([]byte, sessionSize)
	answer := &apiv1.GetVMResponse{Vm: shown()}
	asked := &apiv1.GetVMRequest{Vm: "web-1", Project: "web"}
	token := make([]byte, 43)
	cross := func(from, to *tagger, d linkv1.Direction, t linkv1.Type, m proto.Message) proto.Message {
		f := &linkv1.Frame{Session: session, Direction: d, Counter: 7, Type: t, Payload: must(proto.Marshal(m))}
		from.tag(f)
		if _, refusal := atBroker().Check(f, d); refusal != nil {
			b.Fatal(refusal)
		}
		if !to.matches(f) {
			b.Fatal("the tag is not its own")
		}
		checked, refusal := atEnd().Check(f, d)
		if refusal != nil {
			b.Fatal(refusal)
		}
		return checked.Message
	}
	atEnd()
	atBroker()
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		body := must(proto.Marshal(asked))
		r := cross(keys.up, far.up, linkv1.Direction_UP, linkv1.Type_CALL_REQUEST, &linkv1.CallRequest{
			Call: 7, Method: getVM, Body: body, DeadlineMs: 30000, Credit: 1, Language: "ko",
			SealedCredential: keys.sealCredential(7, getVM, body, token),
		}).(*linkv1.CallRequest)
		if _, err := far.openCredential(7, r.Method, r.Body, r.SealedCredential); err != nil {
			b.Fatal(err)
		}
		cross(far.down, keys.down, linkv1.Direction_DOWN, linkv1.Type_CALL_RESPONSE, &linkv1.CallResponse{
			Call: 7, Method: getVM, Body: must(proto.Marshal(answer)), End: true,
		})
	}
}

// cpu reports the processor time of this process for each operation; the machine's load is not in it.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N)/1e3, "cpu-µs/op") }
}

func BenchmarkTag(b *testing.B) {
	own, _, _ := ephemeral()
	keys := must(newSecrets(own, own.PublicKey().Bytes(), []byte("transcript")))
	f := &linkv1.Frame{Session: make([]byte, sessionSize), Direction: linkv1.Direction_UP, Counter: 7, Type: linkv1.Type_CALL_REQUEST, Payload: make([]byte, 256)}
	keys.up.tag(f)
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if !keys.up.matches(f) {
			b.Fatal("the tag is not its own")
		}
	}
}

// A whole call between two ends in one process, with a broker's check between: everything but TLS and gRPC.
func BenchmarkCallInMemory(b *testing.B) {
	atEnd()
	atBroker()
	w := newWorld()
	answer := must(proto.Marshal(&apiv1.GetVMResponse{Vm: shown()}))
	w.calls = handlerFunc(func(ctx context.Context, c *Call) error { return c.Send(ctx, answer) })
	w.path = brokered
	w.build()
	ctx, cancel := context.WithCancel(context.Background())
	w.wg.Go(func() { w.keep(ctx, ctx) })
	defer w.wg.Wait()
	defer cancel()
	for !w.zone.Connected() {
	}
	benchmarkCalls(b, w.zone)
}

// The same over TLS: two legs, gRPC, certificates and a broker that only checks.
func BenchmarkCallOverTLS(b *testing.B) {
	atEnd()
	zone, _, stop := overTLS(b)
	defer stop()
	benchmarkCalls(b, zone)
}

func benchmarkCalls(b *testing.B, zone *ZoneEnd) {
	in := &apiv1.GetVMRequest{Vm: "web-1", Project: "web"}
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if err := zone.Invoke(context.Background(), getVM, in, &apiv1.GetVMResponse{}); err != nil {
			b.Fatal(err)
		}
	}
}
