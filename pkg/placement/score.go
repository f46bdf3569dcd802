package placement

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// The resources that are counted.
const (
	cores = iota
	memory
	disk
	dimensions
)

// vector is an amount of each resource.
type vector [dimensions]int64

func vectorOf(r *apiv1.Resources) vector {
	return vector{int64(r.GetCores()), int64(r.GetMemoryMib()), int64(r.GetDiskGib())}
}

func (v vector) resources() *apiv1.Resources {
	return &apiv1.Resources{Cores: clamp(v[cores]), MemoryMib: clamp(v[memory]), DiskGib: clamp(v[disk])}
}

func (v vector) negative() vector { return vector{-v[cores], -v[memory], -v[disk]} }

func clamp(n int64) uint32 { return uint32(min(max(n, 0), 1<<32-1)) }

const (
	shareBits = 20
	whole     = 1 << shareBits // the share of something untouched
	unit      = 52             // reciprocals are in units of 2^-unit
)

// reciprocals turns divisions by a capacity into multiplications: amount × reciprocal >> (unit - shareBits) is the
// amount's share of the capacity. 0 stands for a capacity of nothing.
func reciprocals(capacity vector) (r [dimensions]uint64) {
	for d, n := range capacity {
		if n > 0 {
			r[d] = (1 << unit) / uint64(n)
		}
	}
	return r
}

// score rates a host for a size, from what it has free (not below 0); the greater is the better, 0 means that the size
// does not fit. Integers only, so that it comes out the same on every machine.
func score(strategy apiv1.Cluster_Strategy, free, ask *vector, reciprocal *[dimensions]uint64) uint64 {
	a, b, c := free[cores]-ask[cores], free[memory]-ask[memory], free[disk]-ask[disk]
	if a|b|c < 0 { // one of them is
		return 0
	}
	x, y, z := share(a, reciprocal[cores]), share(b, reciprocal[memory]), share(c, reciprocal[disk])
	least, sum := min(x, y, z), x+y+z
	if strategy == apiv1.Cluster_PACK {
		return 1 + (dimensions*whole-sum)<<(shareBits+1) + (whole - least)
	}
	return 1 + least<<(shareBits+2) + sum
}

func share(left int64, reciprocal uint64) uint64 {
	if reciprocal == 0 {
		return whole
	}
	return uint64(left) * reciprocal >> (unit - shareBits)
}
