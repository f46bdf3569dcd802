package config

import (
	"net"
	"strings"
	"testing"
)

func TestAnAddressThatCannotBeListenedOnIsToldByItsReason(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for address, say := range map[string]string{
		taken.Addr().String(): "is taken by another process: free the port or choose another",
		"192.0.2.1:7443":      "this machine has no address of 192.0.2.1:7443: set one that it has", // of RFC 5737: nobody's
		"127.0.0.1:many":      "set another address",
	} {
		_, err := Listen("zone_listen", address)
		if err == nil || !strings.HasPrefix(err.Error(), "zone_listen: ") || !strings.Contains(err.Error(), address[:9]) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v", address, err)
		}
		if err != nil && strings.Contains(err.Error(), "free the port") && address != taken.Addr().String() {
			t.Errorf("%s is said to be taken: %v", address, err)
		}
	}
}
