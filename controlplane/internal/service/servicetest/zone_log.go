package servicetest

import (
	"bytes"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/pkg/audit"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

// BringLog has a zone bring a log that it has kept itself in a life of its store, and returns the key with which it countersigns. The
// last of its entries is not the one that the zone has signed, where broken.
func (w *World) BringLog(zone, life string, entries int, broken bool) (key string) {
	w.Helper()
	seed, is := bytes.Repeat([]byte{3}, audit.SeedSize), w.Zone(zone)
	key = audit.WitnessKey(audit.WitnessName("naru.test", zone), seed)
	batch, log := &linkv1.JournalBatch{Origin: life, Stream: "zone"}, audit.Growing{}
	for n := range entries {
		e := &apiv1.AuditEntry{Sequence: strconv.Itoa(n), Time: timestamppb.Now(), Actor: "user:kim", Action: "vm.start", Outcome: apiv1.AuditEntry_DONE,
			Target: &apiv1.Reference{Kind: "vm", Id: "v" + strconv.Itoa(n), Name: "web-" + strconv.Itoa(n)}, Zone: zone, ZoneId: is.GetId(), ViaZone: zone}
		leaf, err := audit.Leaf(e)
		if err == nil {
			err = log.Append(leaf)
		}
		if err != nil {
			w.Fatal(err)
		}
		root, err := log.Root()
		if err != nil {
			w.Fatal(err)
		}
		note, err := audit.SignLocal(audit.Checkpoint{Origin: audit.LocalOrigin("naru.test", zone, life), Size: log.Size, Root: root,
			Time: time.Now().UTC().Truncate(time.Second)}, seed)
		if err != nil {
			w.Fatal(err)
		}
		if broken && n == entries-1 {
			e.Actor = "user:nobody"
			if leaf, err = audit.Leaf(e); err != nil {
				w.Fatal(err)
			}
		}
		batch.Entries = append(batch.Entries, &linkv1.JournalEntry{Sequence: uint64(n) + 1, Time: timestamppb.Now(),
			Body: &linkv1.JournalEntry_LocalEntry{LocalEntry: &linkv1.LocalEntry{Index: uint64(n), Leaf: leaf, Note: note, Key: key}}})
	}
	for len(batch.GetEntries()) > 0 {
		next := &linkv1.JournalBatch{Origin: life, Stream: "zone", Entries: batch.GetEntries()[:min(256, len(batch.GetEntries()))]}
		w.Do(&commandv1.Command{Body: &commandv1.Command_AppendJournal{AppendJournal: &commandv1.AppendJournal{ZoneId: is.GetId(), Batch: next}}})
		batch.Entries = batch.GetEntries()[len(next.GetEntries()):]
	}
	return key
}
