package e2e

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestFaultsOnASimulatedSite(t *testing.T) {
	needs(t)
	s := raise(t, "--without-libvirt", "--agents", "3")
	rounds, seed := number(t, "NARU_E2E_KILLS", 1), number(t, "NARU_E2E_SEED", time.Now().UnixNano())
	t.Logf("repeat with NARU_E2E_SEED=%d", seed)
	// Two zones, each its own course of faults; what is killed in between them is killed for both.
	t.Run("zones", func(t *testing.T) {
		t.Run("in the management zone", func(t *testing.T) {
			t.Parallel()
			t.Run("P2 kill -9 in the middle of a creation leaves exactly one VM", func(t *testing.T) { killedInTheMiddle(t, s, rounds, seed) })
			t.Run("P24 a restored store deletes and starts nothing", func(t *testing.T) { zoneRestored(t, s) })
		})
		t.Run("in the business zone", func(t *testing.T) {
			t.Parallel()
			t.Run("P4 a zone whose link is cut carries on", func(t *testing.T) { linkCut(t, s) })
			t.Run("P2 P3 another agent carries on where the owner of a cluster is gone", func(t *testing.T) { ownerGone(t, s, rounds, seed) })
		})
	})
	// The last one: of three servers it leaves one.
	t.Run("P24 a restored control plane deletes nothing and adopts what it does not know", func(t *testing.T) { planeRestored(t, s) })
}

// number reads a number that may be set from outside.
func number(t *testing.T, variable string, otherwise int64) int64 {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}
