package replica

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// TestP27OfAThousandParallelCreatesAsManyGetInAsTheLimitSays: each is proposed at one of three servers.
func TestP27OfAThousandParallelCreatesAsManyGetInAsTheLimitSays(t *testing.T) {
	const all, limit = 1000, 137
	synctest.Test(t, func(t *testing.T) {
		b := newBureau(t, true)
		defer b.outlive()
		defer func() {
			for _, n := range b.running() {
				b.kill(n)
			}
		}()
		b.furnish()
		b.must(b.leader(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_CreateQuota{CreateQuota: &commandv1.CreateQuota{Quota: &apiv1.Quota{
			Id: "q", Organization: "home", OrganizationId: "o-home", Limit: &apiv1.Amounts{Vms: proto.Uint32(limit)}}}}})
		for _, n := range b.nodes {
			check(t, n.ReadIndex(t.Context()))
		}
		var in, out atomic.Int64
		var callers sync.WaitGroup
		for i := range all {
			callers.Go(func() {
				_, err := b.nodes[i%len(b.nodes)].Propose(t.Context(), &commandv1.Command{Actor: "test", Body: &commandv1.Command_CreateVm{CreateVm: &commandv1.CreateVM{
					OperationId: fmt.Sprint("op-", i), Deadline: timestamppb.New(time.Now().Add(time.Hour)), Vm: &apiv1.VM{
						Id: fmt.Sprint("vm-", i), Name: fmt.Sprint("web-", i), Project: "shop", ProjectId: "p-shop", Zone: "business", ZoneId: "z-1", Cluster: "kvm", ClusterId: "c-kvm",
						Flavor: "s1", Image: "tiny", ImageSha256: strings.Repeat("ab", 32), Size: &apiv1.Resources{Cores: 1, MemoryMib: 512, DiskGib: 1}}}}})
				switch {
				case err == nil:
					in.Add(1)
				case problem.Is(err, problem.QuotaExceeded):
					out.Add(1)
				default:
					t.Errorf("VM %d: %v", i, err)
				}
			})
		}
		callers.Wait()
		if in.Load() != limit || out.Load() != all-limit {
			t.Errorf("%d got in and %d were refused, of %d with a limit of %d", in.Load(), out.Load(), all, limit)
		}
		for _, n := range b.nodes {
			check(t, n.ReadIndex(t.Context()))
			check(t, b.databases[n.id].View(t.Context(), func(tx *state.Tx) error {
				vms, err := tx.VMs.Count(nil, "")
				if err != nil {
					return err
				}
				q, err := tx.Quotas.Get("q")
				if err != nil {
					return err
				}
				drift, err := tx.Recount()
				if vms != limit || q.GetHeld().GetVms() != limit || q.GetLeft().GetVms() != 0 || len(drift) > 0 {
					t.Errorf("%s has %d VMs, and says %v; drift %v", n.id, vms, q, drift)
				}
				return err
			}))
		}
		b.sameEverywhere()
	})
}
