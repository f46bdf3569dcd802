package federation_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

func mustID(text string) spiffeid.ID { return spiffeid.RequireFromString(text) }

func TestASessionIsMatchedAndItsFramesCrossUnchanged(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	if up.ZoneID != "z1" || up.Agent != "a1" || up.Schema != 1 || up.Broker != "b1" {
		t.Errorf("taken up as %+v", up.Session)
	}
	sent := a.send(linkv1.Type_STATE_ACK, &linkv1.StateAck{Point: &linkv1.StateAckPoint{Epoch: 1, Revision: 7}})
	if got := receive(t, up.Stream); !proto.Equal(got, sent) {
		t.Errorf("sent %v, came %v", sent, got)
	}
}
