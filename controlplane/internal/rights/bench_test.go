package rights

import (
	"fmt"
	"testing"
)

// BenchmarkDecision is what a decision costs: one question to the policy engine; rights that are known already; and rights
// that are made anew, with as many bindings, for a list.
func BenchmarkDecision(b *testing.B) {
	m, _ := MethodOf("VMService/ListVMs")
	s := kim(bound(builtIn("user"), inProject, "web"))
	b.Run("engine", func(b *testing.B) {
		p, err := compile(builtIn("user"))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if !p.ask(question{who: &s, permission: "vm.read", shown: true}).permitted {
				b.Fatal("refused")
			}
		}
	})
	b.Run("known", func(b *testing.B) {
		r := New(s)
		b.ReportAllocs()
		for b.Loop() {
			if r.Admit(m) != nil || len(r.Reach("vm.read", m)) != 1 {
				b.Fatal("refused")
			}
		}
	})
	for _, n := range []int{1, 10, 1000} {
		var grants []Grant
		for i := range n {
			g := bound(builtIn("user"), inProject, "web")
			g.Projects = []Project{{Ref{fmt.Sprintf("p-%04d", i), fmt.Sprintf("p%04d", i)}, "bureau"}}
			grants = append(grants, g)
		}
		b.Run(fmt.Sprintf("anew/bindings=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if reach := New(kim(grants...)).Reach("vm.read", m); len(reach[0].Projects) != n {
					b.Fatal(reach)
				}
			}
		})
	}
}
