package audit

import (
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// The control plane's own log says of the logs that zones have kept themselves which root they had when they were brought. So who has
// verified an export of the one can hold an export of another against it.

// Merges is the action of the entry that says so: its target is the life of the zone's store, its digest the root.
const Merges = "zone.merge-log"

// Seals are the roots that the control plane's log tells of, by the life of the zone's store, in order.
type Seals map[string][]tlog.Hash

// note takes in what an entry of a log tells of another.
func (s Seals) note(e *apiv1.AuditEntry) {
	if e.GetAction() == Merges && len(e.GetDigest()) == tlog.HashSize {
		life := e.GetTarget().GetId()
		s[life] = append(s[life], tlog.Hash(e.GetDigest()))
	}
}

// holds reports whether a root is one of those.
func (s Seals) holds(root tlog.Hash) bool {
	for _, roots := range s {
		if slices.Contains(roots, root) {
			return true
		}
	}
	return false
}

// sealed notes whether the control plane's log tells of the tree as it is now.
func (v *verifier) sealed() error {
	if len(v.trust.Seals) == 0 || v.size == 0 {
		return nil
	}
	root, err := tlog.TreeHash(int64(v.size), v.edges())
	if err == nil && v.trust.Seals.holds(root) {
		v.met[root], v.report.Sealed = true, v.size
	}
	return err
}

// unsealed finds fault with a log of which the control plane's tells another thing than it is, or nothing.
func (v *verifier) unsealed(life string) error {
	roots := v.trust.Seals[life]
	if v.trust.Seals == nil {
		return nil
	}
	if len(roots) == 0 {
		return v.fault("the control plane's log, as far as it was given, does not tell of it")
	}
	// A root of less than what stood before the export cannot be met, and the newest is of the most.
	if v.report.From == 0 && slices.ContainsFunc(roots, func(r tlog.Hash) bool { return !v.met[r] }) || !v.met[roots[len(roots)-1]] {
		return &Fault{v.report.Sealed, v.size, "the control plane's log tells of another log, or of more of it, than this"}
	}
	return nil
}
