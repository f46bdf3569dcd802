package service

import (
	"strconv"
	"testing"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestATokenIsKeptOnlyWhileItsChangesAreFollowed(t *testing.T) {
	var c cache[apiv1.AccessToken]
	token := &apiv1.AccessToken{Id: "t"}
	_, age := c.get("t")
	c.put("t", token, age)
	if got, _ := c.get("t"); got != nil {
		t.Fatal("it is kept though nobody follows")
	}
	c.empty(map[string]*apiv1.AccessToken{})
	c.put("t", token, age)
	if got, _ := c.get("t"); got != nil {
		t.Fatal("what was read before a change is kept after it")
	}
	_, age = c.get("t")
	c.put("t", token, age)
	if got, _ := c.get("t"); got != token {
		t.Fatal("it is not kept")
	}
	c.empty(nil)
	if got, _ := c.get("t"); got != nil {
		t.Fatal("it is kept after its changes are no longer followed")
	}
}

func TestTheCacheOfTokensIsBounded(t *testing.T) {
	var c cache[apiv1.AccessToken]
	c.empty(map[string]*apiv1.AccessToken{})
	_, age := c.get("")
	for i := range 3 * maxCached {
		c.put(strconv.Itoa(i), &apiv1.AccessToken{}, age)
	}
	if len(c.kept) > maxCached {
		t.Fatalf("it keeps %d", len(c.kept))
	}
}
