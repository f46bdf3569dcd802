package federation_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/naru-project/naru/federation"
	"github.com/naru-project/naru/federation/hub"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// flood sends large frames until the stream ends.
func (a *agent) flood(size int) {
	m := &linkv1.SampleBatch{}
	for range size / 64 {
		m.Vms = append(m.Vms, vmSample(60))
	}
	f := a.frame(linkv1.Type_SAMPLE_BATCH, m)
	for a.stream.Send(f) == nil {
		a.counter++
		f = &linkv1.Frame{Session: f.Session, Direction: f.Direction, Counter: a.counter, Type: f.Type, Payload: f.Payload, Tag: f.Tag}
	}
}

func TestAServerThatIsSlowWithOneZoneIsQuickWithAnother(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	slow, _ := s.session(one, s.agentHolder("z1", "a1", time.Now())) // whose frames nobody reads
	done := make(chan struct{})
	go func() { slow.flood(200 << 10); close(done) }()
	s.standsStill("the slow one has come to a stand", slowFrames(s))
	a, up := s.session(one, s.agentHolder("z2", "a1", time.Now()))
	for range 100 {
		a.send(linkv1.Type_CALL_REQUEST, call(1))
		receive(t, up.Stream)
	}
	slow.close()
	<-done
}

func slowFrames(s *site) func() float64 {
	return func() float64 { return s.gauge("naru_broker_frames_total", "zone=z1") }
}

func TestAnAgentThatDoesNotReadHoldsUpNobodyElse(t *testing.T) {
	s := newSite(t)
	one := s.server("s1")
	deaf, deafUp := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	chunk := &linkv1.Frame{
		Session: deaf.session, Direction: linkv1.Direction_DOWN, Counter: 1, Type: linkv1.Type_CALL_RESPONSE, Tag: random(32),
		Payload: deaf.frame(linkv1.Type_CALL_RESPONSE, &linkv1.CallResponse{Call: 1, Method: call(1).Method, Etag: "e"}).Payload,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for deafUp.Stream.Send(chunk) == nil {
		}
	}()
	s.standsStill("the deaf one has come to a stand", slowFrames(s))
	a, up := s.session(one, s.agentHolder("z2", "a1", time.Now()))
	for range 100 {
		chunk := &linkv1.Frame{Session: a.session, Direction: linkv1.Direction_DOWN, Counter: 1, Type: linkv1.Type_CALL_RESPONSE, Tag: chunk.Tag, Payload: chunk.Payload}
		if err := up.Stream.Send(chunk); err != nil {
			t.Fatal(err)
		}
		receive(t, a.stream)
	}
	deafUp.end()
	<-done
}

// P15: what one zone can make a broker hold is bounded, whatever it sends and however little the far side reads.
func TestP15AFloodingZoneIsBoundedInMemory(t *testing.T) {
	s := newChildSite(t)
	one := s.absentServer("s1", func(c *hub.Config) { c.Fingerprint = s.fingerprint })
	s.ready(1)
	before := s.resident()
	for i := range s.config.Limits.SessionsPerZone {
		a := s.connect(s.agentHolder("z1", "a"+string(rune('1'+i)), time.Now()))
		one.next(t) // and never read
		done := make(chan struct{})
		go func() { a.flood(250 << 10); close(done) }()
		defer func() { a.close(); <-done }()
	}
	s.standsStill("they have come to a stand", func() float64 { return forwarded(s.get("/metrics")) })
	if grown := s.peak() - before; grown > 96<<20 {
		t.Errorf("the broker grew by %d MiB", grown>>20)
	} else {
		t.Logf("the broker grew by %d MiB for %d sessions", grown>>20, s.config.Limits.SessionsPerZone)
	}
}

// forwarded reads how many frames of samples a broker says it has forwarded.
func forwarded(metrics string) (sum float64) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "naru_broker_frames_total") && strings.Contains(line, "SAMPLE_BATCH") {
			fields := strings.Fields(line)
			sum += must(strconv.ParseFloat(fields[len(fields)-1], 64))
		}
	}
	return sum
}

func TestAZonesFramesHaveAPace(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Limits.FramesPerSecondPerZone = 100 })
	one := s.server("s1")
	a, up := s.session(one, s.agentHolder("z1", "a1", time.Now()))
	b, bUp := s.session(one, s.agentHolder("z1", "a2", time.Now()))
	began := time.Now()
	go func() {
		for range 75 {
			a.send(linkv1.Type_PING, &linkv1.Ping{})
			b.send(linkv1.Type_PING, &linkv1.Ping{})
		}
	}()
	for range 75 {
		receive(t, up.Stream)
		receive(t, bUp.Stream)
	}
	// A second's worth passes at once, the other fifty take half a second; both sessions share the zone's pace.
	if took := time.Since(began); took < 450*time.Millisecond {
		t.Errorf("150 frames passed in %s", took)
	}
	if s.gauge("naru_broker_throttled_seconds_total", "zone=z1") == 0 {
		t.Error("not counted")
	}
}

func TestOneAddressHasOnlySoManyConnections(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Limits.ConnectionsPerAddress = 3 })
	s.server("s1")
	var open []net.Conn
	for range 3 {
		open = append(open, must(net.Dial("tcp", s.zoneAddr)))
	}
	s.eventually("three are counted", func() bool { return s.gauge("naru_broker_zone_connections") == 3 })
	fourth := must(net.Dial("tcp", s.zoneAddr))
	defer fourth.Close()
	if _, err := fourth.Read(make([]byte, 1)); err == nil {
		t.Error("the fourth was let in")
	}
	if s.gauge("naru_broker_connections_refused_total", "reason=address") != 1 {
		t.Error("not counted")
	}
	for _, conn := range open {
		conn.Close()
	}
	s.eventually("they are forgotten", func() bool { return s.gauge("naru_broker_zone_connections") == 0 })
	s.silent(s.agentHolder("z1", "a1", time.Now()))
}

func TestAHandshakeIsNotWaitedForForEver(t *testing.T) {
	s := newSite(t, func(c *federation.Config) { c.Patience.Handshake = 50 * time.Millisecond })
	s.server("s1")
	conn := must(net.Dial("tcp", s.zoneAddr))
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("it got a word")
	}
	s.eventually("counted", func() bool { return s.gauge("naru_broker_connections_refused_total", "reason=handshake") == 1 })
}
