package service

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

func TestWhatIsKeptIsGoneAtOnceWhenItsTableChanges(t *testing.T) {
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{ServerID: "s", Federation: "naru.test"})
	if err != nil {
		t.Fatal(err)
	}
	c := newCache[apiv1.AccessToken](db, "access_tokens")
	_, before := c.get("t")
	token := &apiv1.AccessToken{Id: "t"}
	c.put("t", token, before)
	if got, _ := c.get("t"); got != token {
		t.Fatal("it is not kept")
	}
	if err := db.Update(func(tx *state.Tx) error { return tx.AccessTokens.Put(token) }); err != nil {
		t.Fatal(err)
	}
	c.put("t", token, before) // read before the change, kept after it
	if got, _ := c.get("t"); got != nil {
		t.Fatal("what was read before a change is given after it")
	}
	c.put("t", token, before)
	if got, _ := c.get("t"); got != nil {
		t.Fatal("what was read before a change is kept after it")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, age := c.get("t")
	c.put("t", token, age)
	if got, _ := c.get("t"); got != nil {
		t.Fatal("it is kept though nothing tells of changes any more")
	}
}

func TestACacheIsBounded(t *testing.T) {
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{ServerID: "s", Federation: "naru.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := newCache[apiv1.AccessToken](db, "access_tokens")
	_, age := c.get("")
	for i := range 3 * maxCached {
		c.put(strconv.Itoa(i), &apiv1.AccessToken{}, age)
	}
	if len(c.kept) > maxCached {
		t.Fatalf("it keeps %d", len(c.kept))
	}
}
