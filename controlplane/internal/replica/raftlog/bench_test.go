package raftlog

import (
	"fmt"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l := open(b, b.TempDir(), Options{})
			defer l.Close()
			next := uint64(1)
			for b.Loop() {
				batch := entries(next, size, 1)
				check(b, l.StoreLogs(batch))
				next += uint64(size)
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	l := open(b, b.TempDir(), Options{})
	defer l.Close()
	const n = 50_000
	for i := uint64(1); i <= n; i += 500 {
		check(b, l.StoreLogs(entries(i, 500, 1)))
	}
	for b.Loop() {
		_, err := l.Verify(0)
		check(b, err)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
