package gateway

import (
	"io"
	"testing"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func FuzzQuery(f *testing.F) {
	for _, q := range []string{"", "a=b", "page_size=3&page_size=4", "%zz", "filter=state%3DRUNNING&order_by=name+desc", "a[b]=c", ";", "vm.name=x"} {
		f.Add(q)
	}
	known := map[string]bool{"filter": true, "order_by": true, "page_size": true}
	f.Fuzz(func(t *testing.T, raw string) {
		err := checkQuery(raw, known)
		if err != nil && !problem.Is(err, problem.Invalid) {
			t.Fatalf("%q: %v", raw, err)
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, b := range []string{"", "{}", `{"name":"a"}`, `{"name":"a"} {}`, "null", "[]", `{"size":{"cores":1}}`, "\x00", `{"name":"\ud800"}`} {
		f.Add([]byte(b))
	}
	j := &jsonMarshaler{encoder: &Encoder{}}
	f.Fuzz(func(t *testing.T, body []byte) {
		vm := &apiv1.VM{}
		err := j.Unmarshal(body, vm)
		if err == io.EOF {
			return
		}
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if _, err := j.Marshal(vm); err != nil {
			t.Fatalf("%q was read and cannot be written: %v", body, err)
		}
	})
}
