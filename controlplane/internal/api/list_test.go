package api_test

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// TestPagingThroughAThousandVMsWhileOthersAreMadeMissesNone: every VM that is there from before to after comes once.
func TestPagingThroughAThousandVMsWhileOthersAreMadeMissesNone(t *testing.T) {
	const n = 1000
	f := newFederation(t, 200) // 200 × 8 cores
	a := f.Admin()
	create := func(name string) {
		if _, err := a.VMs.CreateVM(context.Background(), &apiv1.CreateVMRequest{Vm: f.VM(name, "web")}); err != nil {
			t.Error(err)
		}
	}
	var makers sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		makers.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				create(fmt.Sprintf("vm-%04d", i))
			}
		})
	}
	makers.Wait()

	stop := make(chan struct{})
	makers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprintf("vm-%04d-x", i%n) // between those that count
			create(name)
			if _, err := a.VMs.DeleteVM(context.Background(), &apiv1.DeleteVMRequest{Vm: name, Project: "web"}); err != nil {
				t.Error(err)
			}
			if i == 400 {
				return
			}
		}
	})
	defer func() { close(stop); makers.Wait() }()
	c := f.asAdmin()
	seen := map[string]int{}
	for token := ""; ; {
		var page struct {
			VMs           []struct{ Name string }
			NextPageToken string `json:"next_page_token"`
		}
		c.call("GET", "/v1/vms?project=web&page_size=37&order_by=name&page_token="+url.QueryEscape(token), "").json(t, 200, &page)
		if len(page.VMs) > 37 {
			t.Fatalf("a page of %d", len(page.VMs))
		}
		for _, vm := range page.VMs {
			seen[vm.Name]++
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	for i := 1; i <= n; i++ {
		if name := fmt.Sprintf("vm-%04d", i); seen[name] != 1 {
			t.Errorf("%s came %d times", name, seen[name])
		}
	}
	for name, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", name, times)
		}
	}
}
