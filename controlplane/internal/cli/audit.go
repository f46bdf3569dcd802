package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/naru-project/naru/pkg/audit"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

var auditColumns = []column[*apiv1.AuditEntry]{
	{head: "SEQUENCE", value: (*apiv1.AuditEntry).GetSequence},
	{head: "TIME", value: func(m *apiv1.AuditEntry) string { return local(m.GetTime()) }},
	{head: "ACTOR", value: (*apiv1.AuditEntry).GetActor},
	{head: "ACTION", value: (*apiv1.AuditEntry).GetAction},
	{head: "TARGET", value: func(m *apiv1.AuditEntry) string { return m.GetTarget().GetName() }},
	{head: "OUTCOME", value: func(m *apiv1.AuditEntry) string { return lower(m.GetOutcome()) }, state: true},
	{head: "PROJECT", value: (*apiv1.AuditEntry).GetProject, wide: true},
	{head: "ZONE", value: (*apiv1.AuditEntry).GetZone, wide: true},
	{head: "VIA", value: (*apiv1.AuditEntry).GetViaZone, wide: true},
	{head: "CODE", value: (*apiv1.AuditEntry).GetProblemCode, wide: true},
	{head: "MESSAGE", value: (*apiv1.AuditEntry).GetMessage, text: true, wide: true},
}

func (a *app) audit() *cobra.Command {
	var log string
	n := noun[*apiv1.AuditEntry]{
		name: "audit", plural: "audit entries", short: "The audit log: who did what, provably", in: []string{"project", "zone"},
		filter: "actor=user:kim", history: true, columns: auditColumns,
		narrow: func(flags *pflag.FlagSet) { logFlag(flags, &log) },
		list: func(ctx context.Context, c *client.Client, q query) ([]*apiv1.AuditEntry, string, error) {
			r, err := c.Audit.ListAuditEntries(ctx, &apiv1.ListAuditEntriesRequest{Log: log, Project: q.project, Zone: q.zone, Filter: q.filter, OrderBy: q.order, PageSize: q.size, PageToken: q.token})
			return r.GetAuditEntries(), r.GetNextPageToken(), err
		},
	}
	cmd := &cobra.Command{Use: "audit", Short: n.short}
	cmd.AddCommand(listCommand(a, n), a.auditLogs(), a.exportAudit(), a.auditCheckpoint(), a.verifyAudit())
	return cmd
}

// logFlag says which log is meant.
func logFlag(flags *pflag.FlagSet, log *string) {
	flags.StringVar(log, "log", "", "`name` of a log that a zone has kept itself, as naru audit logs shows it; without it the control plane's own")
}

var logColumns = []column[*apiv1.AuditLog]{
	{head: "LOG", value: func(m *apiv1.AuditLog) string { return cmp.Or(m.GetName(), "-") }},
	{head: "ZONE", value: func(m *apiv1.AuditLog) string { return cmp.Or(m.GetZone(), "-") }},
	{head: "ENTRIES", value: func(m *apiv1.AuditLog) string { return cmp.Or(m.GetCheckpoint().GetSize(), "0") }},
	{head: "SIGNED", value: func(m *apiv1.AuditLog) string { return local(m.GetCheckpoint().GetTime()) }},
	{head: "REFUSED", value: (*apiv1.AuditLog).GetRefused, text: true},
	{head: "LIFE", value: (*apiv1.AuditLog).GetIncarnationId, wide: true},
	{head: "KEY", value: (*apiv1.AuditLog).GetKey, wide: true},
}

func (a *app) auditLogs() *cobra.Command {
	return &cobra.Command{
		Use: "logs", Short: "List the logs: the control plane's own, and those that zones have kept themselves while they were cut off", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				r, err := c.Audit.ListAuditLogs(ctx, &apiv1.ListAuditLogsRequest{})
				if err != nil {
					return err
				}
				return printList(a, logColumns, r.GetAuditLogs())
			})
		},
	}
}

func (a *app) exportAudit() *cobra.Command {
	var from, log string
	var force bool
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Write the log to a file that can be verified without a server", Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := os.Lstat(args[0]); err == nil && !force {
				return usagef("%s is there already; name another file, or say with --force that it is to be replaced", args[0])
			}
			return a.run(cmd, waitLimit, func(ctx context.Context, c *client.Client) error {
				s, err := c.Audit.ExportAudit(ctx, &apiv1.ExportAuditRequest{From: from, Log: log})
				if err != nil {
					return err
				}
				report, err := saveExport(args[0], s.Recv)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.err, "%s: entries %d to %d, up to the checkpoint of %s.\n", args[0], report.From, report.To-1, report.Newest.Time.Format(time.RFC3339))
				return nil
			})
		},
	}
	logFlag(cmd.Flags(), &log)
	cmd.Flags().StringVar(&from, "from", "", "sequence of the first entry; without it all are exported")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that is there; it is, once the new one is whole")
	return cmd
}

// saveExport writes the pieces to a file that appears only when what the disk gives back is verified to be whole.
func saveExport(path string, next func() (*apiv1.ExportAuditResponse, error)) (*audit.Report, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, usagef("a file in the folder %s cannot be made: %v; name another, or make it first", filepath.Dir(path), causeOf(err))
	}
	defer os.Remove(f.Name())
	defer f.Close()
	w := audit.NewWriter(f)
	for {
		piece, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := w.Write(piece); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	report, err := audit.Verify(f, audit.Trust{})
	if err != nil {
		return nil, notAsSigned("what the server sent", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	return report, syncFolder(filepath.Dir(path))
}

var witnessColumns = []column[*apiv1.AuditWitness]{
	{head: "ZONE", value: (*apiv1.AuditWitness).GetZone},
	{head: "ENTRIES", value: (*apiv1.AuditWitness).GetSize},
	{head: "BEHIND", value: (*apiv1.AuditWitness).GetBehind},
	{head: "SINCE", value: func(m *apiv1.AuditWitness) string { return age(m.GetTime()) }},
	{head: "OBJECTION", value: func(m *apiv1.AuditWitness) string { return m.GetObjection().GetReason() }, state: true},
	{head: "LOST", value: func(m *apiv1.AuditWitness) string { return strconv.Itoa(len(m.GetLost())) }},
	{head: "WHY", value: func(m *apiv1.AuditWitness) string { return m.GetObjection().GetMessage() }, text: true, wide: true},
	{head: "KEYS", value: func(m *apiv1.AuditWitness) string { return strings.Join(m.GetKeys(), ",") }, wide: true},
}

func (a *app) auditCheckpoint() *cobra.Command {
	var keys, witnesses bool
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "Show the newest signed checkpoint, to be kept outside, and who countersigns", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.run(cmd, shortLimit, func(ctx context.Context, c *client.Client) error {
				r, err := c.Audit.GetAuditCheckpoint(ctx, &apiv1.GetAuditCheckpointRequest{})
				if err != nil {
					return err
				}
				switch {
				case a.output == "json" || a.output == "yaml":
					return a.document(r)
				case keys:
					fmt.Fprintln(a.out, strings.Join(r.GetKeys(), "\n"))
				case witnesses:
					return printList(a, witnessColumns, r.GetWitnesses())
				default:
					fmt.Fprint(a.out, r.GetCheckpoint().GetNote())
					a.tellWitnesses(r.GetWitnesses())
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&keys, "keys", false, "show the public keys that checkpoints are checked with, one a line")
	cmd.Flags().BoolVar(&witnesses, "witnesses", false, "show how far each zone has countersigned the log, and how far it is behind")
	cmd.MarkFlagsMutuallyExclusive("keys", "witnesses")
	return cmd
}

// tellWitnesses says beside a checkpoint who has countersigned the log, and how far.
func (a *app) tellWitnesses(all []*apiv1.AuditWitness) {
	for _, w := range all {
		switch o := w.GetObjection(); {
		case o != nil:
			fmt.Fprintf(a.err, "Zone %s does not countersign the log (%s): %s\n", w.GetZone(), o.GetReason(), o.GetMessage())
		case w.GetSize() == "0":
			fmt.Fprintf(a.err, "Zone %s has not countersigned yet.\n", w.GetZone())
		default:
			fmt.Fprintf(a.err, "Zone %s has countersigned %s entries, %s fewer than these, %s.\n", w.GetZone(), w.GetSize(), w.GetBehind(), ago(w.GetTime()))
		}
	}
}

func (a *app) verifyAudit() *cobra.Command {
	var keys, known []string
	var sealedBy string
	var required audit.Trust
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Verify an export; asks no server", Args: oneArgument,
		Long: `Verify that an export is whole, in order, and as it was signed, and say where it is not.

An export proves by itself that it is whole; whose it is, it proves with keys that were kept (--key); and that nothing of what was
signed before is missing or another, with checkpoints that were kept (--known), as naru audit checkpoint shows them, or by zones that have
countersigned it (--witnesses, --witness). Of zones only those count whose keys are given with --key.

A log that a zone has kept itself is signed by that zone, with the key with which it countersigns: name the zone with --zone.
With --sealed-by FILE, an export of the control plane's log, it also has to be what that log says was brought.`,
		RunE: func(_ *cobra.Command, args []string) error {
			trust := required
			for _, k := range keys {
				text, err := a.argument(k)
				if err != nil {
					return err
				}
				for _, key := range strings.Fields(text) {
					if audit.CheckKey(key) != nil {
						return usagef("--key %s: it is no key of a log, nor of a zone; naru audit checkpoint --keys shows them", key)
					}
					trust.Keys = append(trust.Keys, key)
				}
			}
			for _, path := range known {
				text, err := os.ReadFile(path)
				if err != nil {
					return usagef("the checkpoint %s cannot be read: %v", path, causeOf(err))
				}
				if _, err := audit.Read(string(text)); err != nil {
					return usagef("--known %s: it is no checkpoint, as naru audit checkpoint shows one", path)
				}
				trust.Known = append(trust.Known, string(text))
			}
			if trust.Witnesses < 0 || trust.Lag < 0 {
				return usagef("--witnesses and --lag cannot be below zero")
			}
			if (trust.Witnesses > 0 || len(trust.Named) > 0) && len(trust.Keys) == 0 {
				return usagef("--witnesses and --witness need the keys of zones, as they were kept, with --key")
			}
			if err := haveKeys(trust); err != nil {
				return err
			}
			if sealedBy != "" {
				if trust.Zone == "" {
					return usagef("--sealed-by is for a log that a zone has kept itself: name the zone with --zone")
				}
				own, err := verifyFile(sealedBy, audit.Trust{Keys: trust.Keys})
				if err != nil {
					return err
				}
				if own.Seals == nil {
					return usagef("%s is no export of the control plane's log, which is what --sealed-by needs", sealedBy)
				}
				a.tellVerified(sealedBy, own)
				trust.Seals = own.Seals
			}
			r, err := verifyFile(args[0], trust)
			if err != nil {
				return err
			}
			a.tellVerified(args[0], r)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public key that was kept, or @FILE with one a line; may be repeated")
	cmd.Flags().StringVar(&required.Zone, "zone", "", "`zone` whose own log it is; without it the control plane's, where its key is given")
	cmd.Flags().StringVar(&sealedBy, "sealed-by", "", "`file` with an export of the control plane's log, which tells what the zone has brought")
	cmd.Flags().StringArrayVar(&known, "known", nil, "file with a checkpoint that was kept; may be repeated")
	cmd.Flags().IntVar(&required.Witnesses, "witnesses", 0, "how many zones, at least, have to have countersigned it")
	cmd.Flags().StringArrayVar(&required.Named, "witness", nil, "`zone` that has to have countersigned it; may be repeated")
	cmd.Flags().DurationVar(&required.Lag, "lag", time.Hour, "how much older than the newest checkpoint the countersigned one may be")
	return cmd
}

// haveKeys refuses zones that have to have countersigned an export and whose keys were not given: no export could show that they have.
func haveKeys(trust audit.Trust) error {
	zones := map[string]bool{}
	for _, key := range trust.Keys {
		name, _, _ := strings.Cut(key, "+")
		if zone := audit.ZoneOf(name); zone != "" {
			zones[zone] = true
		}
	}
	given := cmp.Or(strings.Join(slices.Sorted(maps.Keys(zones)), ", "), "no zone")
	for _, zone := range trust.Named {
		if !zones[zone] {
			return usagef("--witness %s: its key is not among those that are given with --key, which are of %s", zone, given)
		}
	}
	if trust.Witnesses > len(zones) {
		return usagef("--witnesses %d: the keys that are given with --key are of %s", trust.Witnesses, given)
	}
	return nil
}

func verifyFile(path string, trust audit.Trust) (*audit.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("%s cannot be read: %v", path, causeOf(err))
	}
	defer f.Close()
	r, err := audit.Verify(f, trust)
	if errors.Is(err, audit.ErrNoExport) {
		return nil, usagef("%s is no export of an audit log, which naru audit export writes; one whose beginning was changed is none either", path)
	}
	if err != nil {
		return nil, notAsSigned(path, err)
	}
	return r, nil
}

func notAsSigned(what string, err error) error {
	var f *audit.Fault
	if !errors.As(err, &f) {
		return problem.Newf(problem.Contradiction, "Look at what was given with --key and --known.", "%s was not verified: %v", what, err)
	}
	return problem.Newf(problem.Contradiction, "Keep the file as it is: it is evidence. Export anew, and compare with exports and checkpoints that were kept elsewhere.",
		"%s is not what was signed: %v", what, f)
}

func (a *app) tellVerified(path string, r *audit.Report) {
	if zone, life := audit.ParseLocalOrigin(r.Newest.Origin); zone != "" {
		fmt.Fprintf(a.out, "%s is whole and as zone %s has signed it: entries %d to %d of the log that it kept itself in the life %s of its store, the newest of %s by its clock.\n",
			path, zone, r.From, r.To-1, life, r.Newest.Time.Format(time.RFC3339))
	} else {
		fmt.Fprintf(a.out, "%s is whole and as it was signed: entries %d to %d, %d checkpoints, the newest of %s (epoch %d).\n",
			path, r.From, r.To-1, r.Checkpoints, r.Newest.Time.Format(time.RFC3339), r.Newest.Epoch)
	}
	if !r.Pinned {
		fmt.Fprintf(a.out, "The key of %s is the one in the export: compare it, or give the one that was kept with --key.\n", r.Newest.Origin)
	}
	if r.Sealed > 0 {
		fmt.Fprintf(a.out, "The control plane's log says that it was brought as it is, up to entry %d.\n", r.Sealed-1)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Witnesses)) {
		fmt.Fprintf(a.out, "%s has countersigned up to entry %d.\n", name, r.Witnesses[name]-1)
	}
	for _, l := range r.Lost {
		fmt.Fprintf(a.out, "%s countersigned %d entries in epoch %d, at %s, which the log does not hold as they were: an older backup was restored since.\n",
			strings.Join(l.By, " and "), l.Size, l.Epoch, l.Time.Format(time.RFC3339))
	}
	for _, size := range r.Unproved {
		fmt.Fprintf(a.out, "The checkpoint of %d entries is not borne out: the export begins behind it.\n", size)
	}
}
