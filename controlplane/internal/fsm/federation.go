package fsm

import (
	"fmt"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// bootstrap founds the federation. It happens once.
func (c *command) bootstrap(in *commandv1.Bootstrap) (*commandv1.Result, error) {
	meta := c.tx.Meta()
	switch {
	case meta.Federation != "":
		return nil, problem.Newf(problem.WrongState, "Join it instead.", "federation %s exists already", meta.Federation)
	case in.GetFederation() == "" || len(in.GetEpochId()) != 16 || in.GetEpoch() == 0 || !fits(in.GetEpoch()):
		return nil, invalid("a federation needs a name, an epoch and an epoch id of 16 bytes")
	case in.GetServer().GetId() == "" || in.GetServer().GetName() == "":
		return nil, invalid("a federation needs a first server with id and name")
	case in.GetKeyring() == nil:
		return nil, invalid("a federation needs a keyring")
	}
	meta.Federation, meta.Epoch, meta.EpochID, meta.EpochBegan = in.GetFederation(), in.GetEpoch(), in.GetEpochId(), meta.Revision-1
	meta.FeatureLevel = 1
	c.tx.SetMeta(meta)
	if err := c.tx.PutKeyring(in.GetKeyring()); err != nil {
		return nil, err
	}
	if err := c.tx.Organizations.Put(&apiv1.Organization{Id: c.nextID(), Name: firstOrganization, CreatedAt: c.now}); err != nil {
		return nil, err
	}
	if in.GetAdministrator() != nil {
		if _, err := c.createAdministrator(&commandv1.CreateAdministrator{Administrator: in.GetAdministrator()}); err != nil {
			return nil, err
		}
	}
	return c.putServer(&commandv1.PutServer{Server: in.GetServer()})
}

// beginEpoch starts new numbers: what was decided behind the restored point is a future that never was. No zone is
// connected in the new epoch until it says so, and each first reports all that it has.
func (c *command) beginEpoch(in *commandv1.BeginEpoch) (*commandv1.Result, error) {
	meta := c.tx.Meta()
	if in.GetEpoch() <= meta.Epoch || !fits(in.GetEpoch()) || len(in.GetEpochId()) != 16 {
		return nil, problem.Newf(problem.Conflict, "Read the epoch and propose a higher one.",
			"the epoch is %d, and %d is not a higher one with an id of 16 bytes", meta.Epoch, in.GetEpoch())
	}
	// Behind the backup's last revision nothing of the old epoch is known here, whatever this server did before it got here.
	began := meta.Revision - 1
	if restored := in.GetRestoredRevision(); restored > 0 {
		began = min(began, restored)
	}
	meta.Epoch, meta.EpochID, meta.EpochBegan = in.GetEpoch(), in.GetEpochId(), began
	c.tx.SetMeta(meta)
	if err := c.tx.AuditEpochBegins(meta.Epoch); err != nil { // with the entry that this command leaves
		return nil, err
	}
	if err := c.tx.EndZoneSessions(); err != nil {
		return nil, err
	}
	var zones []*apiv1.Zone // collected first: what is being read is not written
	for zone, err := range c.tx.Zones.All(nil) {
		if err != nil {
			return nil, err
		}
		zones = append(zones, zone)
	}
	for _, zone := range zones {
		if err := c.disconnect(zone, "a new epoch began: "+in.GetReason()); err != nil {
			return nil, err
		}
		if err := c.askAll(zone); err != nil {
			return nil, err
		}
	}
	return &commandv1.Result{}, c.tell(apiv1.Event_WARNING, "federation.epoch", whereabouts{}, nil,
		fmt.Sprintf("epoch %d began: %s", in.GetEpoch(), in.GetReason()))
}

// disconnect marks a zone that was connected and no longer is.
func (c *command) disconnect(zone *apiv1.Zone, reason string) error {
	if zone.GetFreshness() != apiv1.Freshness_LIVE {
		return nil
	}
	zone.Freshness = apiv1.Freshness_STALE
	if zone.GetState() == apiv1.Zone_ONLINE || zone.GetState() == apiv1.Zone_DEGRADED {
		setZoneState(c, zone, apiv1.Zone_DISCONNECTED, reason)
	}
	return c.tx.Zones.Put(zone)
}

// pruneAtOnce bounds what one command forgets of each kind, so that no other waits long behind it; the next goes on.
const pruneAtOnce = 10_000

// prune forgets what has outlived its keep.
func (c *command) prune(in *commandv1.Prune) (*commandv1.Result, error) {
	before, operations, events := state.Micros(in.GetBefore()), state.Micros(in.GetOperationsBefore()), state.Micros(in.GetEventsBefore())
	if err := c.tx.ForgetOutcomes(before, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetSessions(state.Micros(c.clock), pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetJoinTokens(before); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetOperations(operations, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetEvents(events, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetRecords(state.Micros(in.GetRecordsBefore()), pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.closeUsage(events); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetFormerVMs(events, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetRoleBindings(in.GetEventsBefore(), pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetCrossings(events, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetLeases(events, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.forgetReservations(events); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetNotifications(events, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetDeliveries(apiv1.Delivery_DELIVERED, before, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.tx.ForgetDeliveries(apiv1.Delivery_DEAD, events, pruneAtOnce); err != nil {
		return nil, err
	}
	if err := c.dropFiles(); err != nil {
		return nil, err
	}
	return &commandv1.Result{}, c.tx.ForgetRejected(events, pruneAtOnce)
}

// raiseFeatureLevel lets commands mean more, once every server understands it. A server that does not has to stop: it
// would carry out what follows otherwise than the others.
func (c *command) raiseFeatureLevel(in *commandv1.RaiseFeatureLevel) (*commandv1.Result, error) {
	meta := c.tx.Meta()
	switch {
	case in.GetLevel() > FeatureLevel:
		return nil, fmt.Errorf("the federation raises its feature level to %d and this version knows %d: run the newer version", in.GetLevel(), FeatureLevel)
	case in.GetLevel() < meta.FeatureLevel:
		return nil, problem.Newf(problem.WrongState, "", "the feature level is %d and does not go back", meta.FeatureLevel)
	}
	meta.FeatureLevel = in.GetLevel()
	c.tx.SetMeta(meta)
	return &commandv1.Result{}, nil
}
