package edge

import (
	"crypto/sha256"
	"sync"
	"time"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

type clock = func() time.Time

const (
	// vouchedFor is how long after the control plane last knew a caller it may read locally.
	vouchedFor = time.Hour
	// vouchedFresh is how long the control plane is not asked about the same caller again.
	vouchedFresh = 5 * time.Minute
	// vouchedMost bounds how many callers are remembered.
	vouchedMost = 4096
)

// vouched remembers callers whom the control plane has known, by the hash of their token. Safe for concurrent use.
type vouched struct {
	now clock

	mu sync.Mutex
	by map[[sha256.Size]byte]voucher
}

type voucher struct {
	who *apiv1.WhoAmIResponse
	at  time.Time
}

func newVouched(now clock) *vouched {
	return &vouched{now: now, by: map[[sha256.Size]byte]voucher{}}
}

func (v *vouched) put(credential string, who *apiv1.WhoAmIResponse) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.by) >= vouchedMost {
		for key, w := range v.by {
			if v.now().Sub(w.at) > vouchedFresh {
				delete(v.by, key)
			}
		}
	}
	if len(v.by) < vouchedMost {
		v.by[sha256.Sum256([]byte(credential))] = voucher{who, v.now()}
	}
}

// forget drops a caller whom the control plane no longer knows.
func (v *vouched) forget(credential string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.by, sha256.Sum256([]byte(credential)))
}

// get returns a caller whom the control plane has known not long ago, and whose credential has not ended by this clock. What a
// user may read is the control plane's to say each time: here only a token counts that is of one project and of nobody.
func (v *vouched) get(credential string) (*apiv1.WhoAmIResponse, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w, ok := v.by[sha256.Sum256([]byte(credential))]
	if !ok || v.now().Sub(w.at) >= vouchedFor || w.who.GetUser() != "" || w.who.GetProject() == "" {
		return nil, false
	}
	end := w.who.GetExpiresAt()
	return w.who, end == nil || v.now().Before(end.AsTime())
}

func (v *vouched) fresh(credential string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now().Sub(v.by[sha256.Sum256([]byte(credential))].at) < vouchedFresh
}
