package provider_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naru-project/naru/controlplane/internal/outbound"
	"github.com/naru-project/naru/controlplane/internal/provider"
	"github.com/naru-project/naru/controlplane/internal/provider/providertest"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var allowed = outbound.Networks{netip.MustParsePrefix("127.0.0.0/8")}

// TestAProviderThatHangsHoldsUpNobodyElse floods one that never answers from one place: who logs in through another one does, from that
// place too; and once it has not answered three times in a row, nobody waits for it any more, until it is tried again.
func TestAProviderThatHangsHoldsUpNobodyElse(t *testing.T) {
	ca := providertest.NewCA(t)
	d := providertest.NewSlapd(t, ca)
	var ahead atomic.Int64
	a := provider.New(allowed, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	hanging := &apiv1.IdentityProvider{Id: "h", Name: "hanging", Ldap: &apiv1.Directory{Urls: []string{"ldaps://" + providertest.Hanging(t)}, UserBase: "dc=corp"}}
	answers := make(chan error, 20)
	var floods sync.WaitGroup
	for range 20 {
		floods.Go(func() {
			_, err := a.Password(t.Context(), "internet", hanging, "", "kim", "x", anybody)
			answers <- err
		})
	}
	for range 14 { // six of a place may ask or wait
		if err := <-answers; !problem.Is(err, problem.TooMany) {
			t.Errorf("who is too many: %v", err)
		}
	}
	good := d.Provider(ca)
	good.Id = "g"
	if _, err := a.Password(t.Context(), "internet", good, providertest.Secret, "kim", "kim's own password", anybody); err != nil {
		t.Errorf("through another one: %v", err)
	}
	floods.Wait()
	failure := (*provider.Failure)(nil)
	for range 6 {
		if err := <-answers; !errors.As(err, &failure) {
			t.Errorf("who waited for it: %v", err)
		}
	}
	began := time.Now()
	if _, err := a.Password(t.Context(), "business", hanging, "", "kim", "x", anybody); !errors.As(err, &failure) || !strings.Contains(err.Error(), "in a row") || time.Since(began) > time.Second {
		t.Errorf("the next one waits %s: %v", time.Since(began), err)
	}
	ahead.Store(int64(time.Minute))
	hanging.Ldap = good.GetLdap()
	if _, err := a.Password(t.Context(), "business", hanging, providertest.Secret, "kim", "kim's own password", anybody); err != nil {
		t.Errorf("once it answers again: %v", err)
	}
}
