package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// Class groups types by the promise that they carry.
type Class string

const (
	ClassOpening Class = "opening"
	ClassState   Class = "state"
	ClassJournal Class = "journal"
	ClassCall    Class = "call"
	ClassSample  Class = "sample"
	ClassControl Class = "control"
)

const (
	tagSize     = 32
	sessionSize = 16
)

// row is what may be in a frame of one type.
type row struct {
	class    Class
	message  proto.Message
	up, down bool
	// Bytes of payload. Frames stay below gRPC's default limit of 4 MiB.
	max int
	// untagged: the frame carries no tag.
	untagged bool
	// broker: written by a broker, never by an end.
	broker bool
}

// rows is the closed table. A function, because a table of messages in a variable would be state.
func rows() map[linkv1.Type]row {
	const kib, mib = 1 << 10, 1 << 20
	return map[linkv1.Type]row{
		linkv1.Type_HELLO:         {class: ClassOpening, message: &linkv1.Hello{}, up: true, max: 512 * kib, untagged: true},
		linkv1.Type_WELCOME:       {class: ClassOpening, message: &linkv1.Welcome{}, down: true, max: mib, untagged: true},
		linkv1.Type_PROOF:         {class: ClassOpening, message: &linkv1.Proof{}, up: true, down: true, max: kib},
		linkv1.Type_STATE_CHUNK:   {class: ClassState, message: &linkv1.StateChunk{}, up: true, down: true, max: mib},
		linkv1.Type_STATE_ACK:     {class: ClassState, message: &linkv1.StateAck{}, up: true, down: true, max: kib},
		linkv1.Type_STATE_RESYNC:  {class: ClassState, message: &linkv1.StateResync{}, up: true, down: true, max: 8 * kib},
		linkv1.Type_JOURNAL_BATCH: {class: ClassJournal, message: &linkv1.JournalBatch{}, up: true, down: true, max: mib},
		linkv1.Type_JOURNAL_ACK:   {class: ClassJournal, message: &linkv1.JournalAck{}, up: true, down: true, max: 2 * mib},
		linkv1.Type_CALL_REQUEST:  {class: ClassCall, message: &linkv1.CallRequest{}, up: true, max: 256 * kib},
		linkv1.Type_CALL_CANCEL:   {class: ClassCall, message: &linkv1.CallCancel{}, up: true, max: 64},
		linkv1.Type_CALL_CREDIT:   {class: ClassCall, message: &linkv1.CallCredit{}, up: true, max: 64},
		linkv1.Type_CALL_RESPONSE: {class: ClassCall, message: &linkv1.CallResponse{}, down: true, max: 3 * mib},
		linkv1.Type_SAMPLE_BATCH:  {class: ClassSample, message: &linkv1.SampleBatch{}, up: true, max: mib},
		linkv1.Type_GOODBYE:       {class: ClassControl, message: &linkv1.Goodbye{}, up: true, down: true, max: 8 * kib},
		linkv1.Type_PING:          {class: ClassControl, message: &linkv1.Ping{}, up: true, down: true, max: 16},
		linkv1.Type_WITHHELD:      {class: ClassControl, message: &linkv1.Withheld{}, up: true, down: true, max: 8 * kib, untagged: true, broker: true},
		linkv1.Type_REFUSED:       {class: ClassControl, message: &linkv1.Refused{}, up: true, down: true, max: 8 * kib, untagged: true, broker: true},
	}
}

func (r row) travels(d linkv1.Direction) bool {
	return d == linkv1.Direction_UP && r.up || d == linkv1.Direction_DOWN && r.down
}

// entry is a row made ready.
type entry struct {
	row
	body
	// Where a call's payload has its method and its body.
	methodField, bodyField protowire.Number
}

func compileTable() (map[linkv1.Type]*entry, error) {
	table := map[linkv1.Type]*entry{}
	for t, r := range rows() {
		md := r.message.ProtoReflect().Descriptor()
		compiled, err := compileBody(md)
		if err != nil {
			return nil, fmt.Errorf("type %s: %w", t, err)
		}
		e := &entry{row: r, body: compiled}
		if t == linkv1.Type_CALL_REQUEST || t == linkv1.Type_CALL_RESPONSE {
			e.methodField, e.bodyField = md.Fields().ByName("method").Number(), md.Fields().ByName("body").Number()
		}
		table[t] = e
	}
	return table, nil
}
