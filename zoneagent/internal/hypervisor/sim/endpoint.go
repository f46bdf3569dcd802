package sim

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settings are what an endpoint says of a host:
//
//	sim://?cores=8&memory_mib=32768&disk_gib=500&latency=5ms&boot=200ms&shutdown=100ms&fail=0.01&lose_reply=0.01&die_after=1h&live=true&seed=7
type settings struct {
	cores, memoryMiB, diskGiB uint32
	latency                   time.Duration // of every call
	boot                      time.Duration // from power on to ready
	shutdown                  time.Duration // from the request to power off; negative: the guest does not listen
	fail                      float64       // share of calls that fail without effect
	loseReply                 float64       // share of calls that have their effect and fail
	dieAfter                  time.Duration // from the first call to the host's death; 0: never
	live                      bool          // cores and memory change while a VM is on
	seed                      uint64
}

func defaults() settings {
	return settings{cores: 8, memoryMiB: 32768, diskGiB: 500, boot: 200 * time.Millisecond, shutdown: 100 * time.Millisecond}
}

// parseEndpoint reads an endpoint and names what is wrong with it.
func parseEndpoint(endpoint string) (settings, error) {
	set := defaults()
	parsed, err := url.Parse(endpoint)
	if err != nil {
		return settings{}, err
	}
	if parsed.Scheme != "sim" {
		return settings{}, fmt.Errorf("%q does not begin with sim://", endpoint)
	}
	if parsed.User != nil || strings.Trim(parsed.Path, "/") != "" || parsed.Fragment != "" || parsed.Opaque != "" {
		return settings{}, fmt.Errorf("%q has more than a name and a query", endpoint)
	}
	values, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return settings{}, err
	}
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if len(values[key]) != 1 {
			return settings{}, fmt.Errorf("%s is given %d times", key, len(values[key]))
		}
		if err := set.put(key, values[key][0]); err != nil {
			return settings{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	return set, nil
}

func (s *settings) put(key, value string) (err error) {
	amount := func(into *uint32) error {
		n, err := strconv.ParseUint(value, 10, 30)
		*into = uint32(n)
		return err
	}
	span := func(into *time.Duration) error {
		*into, err = time.ParseDuration(value)
		if err == nil && *into < 0 && key != "shutdown" {
			return fmt.Errorf("%s is negative", value)
		}
		return err
	}
	share := func(into *float64) error {
		*into, err = strconv.ParseFloat(value, 64)
		if err == nil && !(*into >= 0 && *into <= 1) {
			return fmt.Errorf("%s is not between 0 and 1", value)
		}
		return err
	}
	switch key {
	case "cores":
		return amount(&s.cores)
	case "memory_mib":
		return amount(&s.memoryMiB)
	case "disk_gib":
		return amount(&s.diskGiB)
	case "latency":
		return span(&s.latency)
	case "boot":
		return span(&s.boot)
	case "shutdown":
		return span(&s.shutdown)
	case "fail":
		return share(&s.fail)
	case "lose_reply":
		return share(&s.loseReply)
	case "die_after":
		return span(&s.dieAfter)
	case "live":
		s.live, err = strconv.ParseBool(value)
		return err
	case "seed":
		s.seed, err = strconv.ParseUint(value, 10, 64)
		return err
	default:
		return fmt.Errorf("is not known; known are boot, cores, die_after, disk_gib, fail, latency, live, lose_reply, memory_mib, seed, shutdown")
	}
}
