package state_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// large is a database of n VMs in 20 projects and 3 zones.
func large(b *testing.B, n int) *state.DB {
	b.Helper()
	db := open(b, state.Options{})
	for from := 0; from < n; from += 1000 {
		write(b, db, func(tx *state.Tx) error {
			for i := from; i < min(from+1000, n); i++ {
				m := vm(i)
				m.Name, m.ProjectId, m.ZoneId = fmt.Sprintf("web-%x", i*7919%n), fmt.Sprint("p", i%20), fmt.Sprint("z", i%3)
				m.State = apiv1.VM_State(3 + i%2)
				m.SshKeys = []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvYmJ5IHRhYmxlcyB3YXMgaGVyZSBhbmQgbGVmdCBh ann@desk"}
				if err := tx.VMs.Put(m); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := db.Checkpoint(); err != nil {
		b.Fatal(err)
	}
	return db
}

// S6: a page of 100 has to cost the same in a fleet of any size.
func BenchmarkListPage(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		db := large(b, n)
		for name, q := range map[string]state.Query{
			"by-name": {}, "in-project": {Scope: state.Scope{"project_id": "p7"}}, "filtered": {Filter: "state=RUNNING AND freshness!=LIVE"},
		} {
			b.Run(fmt.Sprintf("vms=%d/%s", n, name), func(b *testing.B) {
				measure(b, 100, func() {
					read(b, db, func(tx *state.Tx) error {
						_, token, err := tx.VMs.List(q)
						q.PageToken = token // the next page; after the last one the first again
						return err
					})
				})
			})
		}
		b.Run(fmt.Sprintf("vms=%d/scan", n), func(b *testing.B) {
			measure(b, n, func() {
				read(b, db, func(tx *state.Tx) error {
					for _, err := range tx.VMs.All(nil) {
						if err != nil {
							return err
						}
					}
					return nil
				})
			})
		})
	}
}

// measure reports CPU time for each call and for each of its rows: what counts on a machine that others use as well.
func measure(b *testing.B, rows int, fn func()) {
	before := cpu(b)
	for b.Loop() {
		fn()
	}
	each := float64(cpu(b)-before) / 1000 / float64(b.N)
	b.ReportMetric(each, "cpu-µs/op")
	b.ReportMetric(each/float64(rows), "cpu-µs/row")
}

func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
