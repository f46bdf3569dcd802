package fsm

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/naru-project/naru/controlplane/internal/state"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// command is one command being carried out: the transaction, and what belongs to this command in it.
type command struct {
	tx    *state.Tx
	id    []byte
	actor string
	// by is the id of who acts: a user, an administrator or an access token; empty where nobody does.
	by string
	// session, or token, is the one by which whoever acts does so, and person who that is, whichever way they came; unset where nobody knows.
	session *apiv1.Session
	token   *apiv1.AccessToken
	person  string
	// now is when: it never goes back, and stands still while the leader's clock is behind what was seen before.
	now *timestamppb.Timestamp
	// clock is what the leader's clock showed. What ends at a time that a clock showed is held against it, so that a clock that
	// was ahead for a while, and was set right, ends nothing early.
	clock *timestamppb.Timestamp
	// ids counts those derived from the command's own.
	ids uint32
	// cause is the id of the zone whose doing the command is; empty where nobody in a zone has a say in it.
	cause string
	// changes are the operations on VMs that it has opened.
	changes []change
}

// newCommand gives a command its revision and its time.
func newCommand(tx *state.Tx, in *commandv1.Command) *command {
	meta := tx.Meta()
	meta.Revision++
	now := stampOf(meta, in)
	meta.LastStamp = now.AsTime()
	tx.SetMeta(meta)
	clock := now
	if in.GetStamp().IsValid() {
		clock = in.GetStamp()
	}
	return &command{tx: tx, id: in.GetId(), actor: in.GetActor(), by: in.GetOrigin().GetActorId(), now: now, clock: clock}
}

// stampOf is the time of a command: the later of its stamp and the last one seen, in microseconds, so that a restored state goes
// on with the same time.
func stampOf(meta state.Meta, in *commandv1.Command) *timestamppb.Timestamp {
	at := meta.LastStamp
	if s := in.GetStamp(); s.IsValid() && s.AsTime().After(at) {
		at = s.AsTime()
	}
	return &timestamppb.Timestamp{Seconds: at.Unix(), Nanos: int32(at.Nanosecond() / 1000 * 1000)}
}

// run carries the command out. A *problem.Error refuses it; any other error is fatal.
func (c *command) run(in *commandv1.Command) (*commandv1.Result, error) {
	bootstrapped := c.tx.Meta().Federation != ""
	switch b := in.GetBody().(type) {
	case *commandv1.Command_Noop:
		return &commandv1.Result{}, nil
	case *commandv1.Command_Bootstrap:
		return c.bootstrap(b.Bootstrap)
	case nil:
		return nil, invalid("the command says nothing that this version knows")
	default:
		if !bootstrapped {
			return nil, problem.New(problem.Unavailable, "the federation has not been bootstrapped", "Bootstrap its first server.")
		}
	}
	if err := c.lives(in); err != nil {
		return nil, err
	}
	switch b := in.GetBody().(type) {
	case *commandv1.Command_BeginEpoch:
		return c.beginEpoch(b.BeginEpoch)
	case *commandv1.Command_Prune:
		return c.prune(b.Prune)
	case *commandv1.Command_RaiseFeatureLevel:
		return c.raiseFeatureLevel(b.RaiseFeatureLevel)
	case *commandv1.Command_RecordEvent:
		return c.recordEvent(b.RecordEvent)
	case *commandv1.Command_ReportDivergence:
		return c.reportDivergence(b.ReportDivergence)
	case *commandv1.Command_BeginBackup:
		return c.beginBackup(b.BeginBackup)
	case *commandv1.Command_ConfirmBackup:
		return c.confirmBackup(b.ConfirmBackup)

	case *commandv1.Command_CreateZone:
		return c.createZone(b.CreateZone)
	case *commandv1.Command_UpdateZone:
		return c.updateZone(b.UpdateZone)
	case *commandv1.Command_DeleteZone:
		return c.deleteZone(b.DeleteZone)
	case *commandv1.Command_QuarantineZone:
		return c.quarantineZone(b.QuarantineZone)
	case *commandv1.Command_LiftQuarantine:
		return c.liftQuarantine(b.LiftQuarantine)
	case *commandv1.Command_CreateCluster:
		return c.createCluster(b.CreateCluster)
	case *commandv1.Command_UpdateCluster:
		return c.updateCluster(b.UpdateCluster)
	case *commandv1.Command_DeleteCluster:
		return c.deleteCluster(b.DeleteCluster)
	case *commandv1.Command_CreateHost:
		return c.createHost(b.CreateHost)
	case *commandv1.Command_UpdateHost:
		return c.updateHost(b.UpdateHost)
	case *commandv1.Command_DeleteHost:
		return c.deleteHost(b.DeleteHost)
	case *commandv1.Command_DeclareHost:
		return c.declareHost(b.DeclareHost)
	case *commandv1.Command_CreateFlavor:
		return c.createFlavor(b.CreateFlavor)
	case *commandv1.Command_UpdateFlavor:
		return c.updateFlavor(b.UpdateFlavor)
	case *commandv1.Command_DeleteFlavor:
		return c.deleteFlavor(b.DeleteFlavor)
	case *commandv1.Command_CreateImage:
		return c.createImage(b.CreateImage)
	case *commandv1.Command_UpdateImage:
		return c.updateImage(b.UpdateImage)
	case *commandv1.Command_DeleteImage:
		return c.deleteImage(b.DeleteImage)
	case *commandv1.Command_CreateProject:
		return c.createProject(b.CreateProject)
	case *commandv1.Command_UpdateProject:
		return c.updateProject(b.UpdateProject)
	case *commandv1.Command_DeleteProject:
		return c.deleteProject(b.DeleteProject)
	case *commandv1.Command_CreateBroker:
		return c.createBroker(b.CreateBroker)
	case *commandv1.Command_UpdateBroker:
		return c.updateBroker(b.UpdateBroker)
	case *commandv1.Command_DeleteBroker:
		return c.deleteBroker(b.DeleteBroker)
	case *commandv1.Command_EnrollBroker:
		return c.enrollBroker(b.EnrollBroker)

	case *commandv1.Command_CreateVm:
		return c.createVM(b.CreateVm)
	case *commandv1.Command_UpdateVm:
		return c.updateVM(b.UpdateVm)
	case *commandv1.Command_SetVmDesired:
		return c.setVMDesired(b.SetVmDesired)
	case *commandv1.Command_ResizeVm:
		return c.resizeVM(b.ResizeVm)
	case *commandv1.Command_EmptyTrash:
		return c.emptyTrash(b.EmptyTrash)
	case *commandv1.Command_CreateSnapshot:
		return c.createSnapshot(b.CreateSnapshot)
	case *commandv1.Command_DeleteSnapshot:
		return c.deleteSnapshot(b.DeleteSnapshot)
	case *commandv1.Command_RestoreSnapshot:
		return c.restoreSnapshot(b.RestoreSnapshot)
	case *commandv1.Command_CreateReservation:
		return c.createReservation(b.CreateReservation)
	case *commandv1.Command_SetReservation:
		return c.setReservation(b.SetReservation)
	case *commandv1.Command_OrderVm:
		return c.orderVM(b.OrderVm)
	case *commandv1.Command_ResolveOperation:
		return c.resolveOperation(b.ResolveOperation)
	case *commandv1.Command_ExpireOperations:
		return c.expireOperations(b.ExpireOperations)

	case *commandv1.Command_PutServer:
		return c.putServer(b.PutServer)
	case *commandv1.Command_DeleteServer:
		return c.deleteServer(b.DeleteServer)
	case *commandv1.Command_CreateAccessToken:
		return c.createAccessToken(b.CreateAccessToken)
	case *commandv1.Command_DeleteAccessToken:
		return c.deleteAccessToken(b.DeleteAccessToken)
	case *commandv1.Command_CreateJoinToken:
		return c.createJoinToken(b.CreateJoinToken)
	case *commandv1.Command_AskToJoin:
		return c.askToJoin(b.AskToJoin)
	case *commandv1.Command_AcceptJoin:
		return c.acceptJoin(b.AcceptJoin)
	case *commandv1.Command_Revoke:
		return c.revoke(b.Revoke)
	case *commandv1.Command_AddAuthority:
		return c.addAuthority(b.AddAuthority)
	case *commandv1.Command_RetireAuthority:
		return c.retireAuthority(b.RetireAuthority)

	case *commandv1.Command_CreateAdministrator:
		return c.createAdministrator(b.CreateAdministrator)
	case *commandv1.Command_RenewAdministrator:
		return c.renewAdministrator(b.RenewAdministrator)
	case *commandv1.Command_DeleteAdministrator:
		return c.deleteAdministrator(b.DeleteAdministrator)

	case *commandv1.Command_CreateOrganization:
		return c.createOrganization(b.CreateOrganization)
	case *commandv1.Command_UpdateOrganization:
		return c.updateOrganization(b.UpdateOrganization)
	case *commandv1.Command_DeleteOrganization:
		return c.deleteOrganization(b.DeleteOrganization)
	case *commandv1.Command_CreateUser:
		return c.createUser(b.CreateUser)
	case *commandv1.Command_UpdateUser:
		return c.updateUser(b.UpdateUser)
	case *commandv1.Command_DeleteUser:
		return c.deleteUser(b.DeleteUser)
	case *commandv1.Command_DisableUser:
		return c.disableUser(b.DisableUser)
	case *commandv1.Command_EnableUser:
		return c.enableUser(b.EnableUser)
	case *commandv1.Command_CreateGroup:
		return c.createGroup(b.CreateGroup)
	case *commandv1.Command_UpdateGroup:
		return c.updateGroup(b.UpdateGroup)
	case *commandv1.Command_DeleteGroup:
		return c.deleteGroup(b.DeleteGroup)
	case *commandv1.Command_AddGroupMember:
		return c.addGroupMember(b.AddGroupMember)
	case *commandv1.Command_RemoveGroupMember:
		return c.removeGroupMember(b.RemoveGroupMember)
	case *commandv1.Command_ResetPassword:
		return c.resetPassword(b.ResetPassword)
	case *commandv1.Command_ChangePassword:
		return c.changePassword(b.ChangePassword)
	case *commandv1.Command_EnrollAuthenticator:
		return c.enrollAuthenticator(b.EnrollAuthenticator)
	case *commandv1.Command_ConfirmAuthenticator:
		return c.confirmAuthenticator(b.ConfirmAuthenticator)
	case *commandv1.Command_RemoveAuthenticator:
		return c.removeAuthenticator(b.RemoveAuthenticator)
	case *commandv1.Command_BeginSession:
		return c.beginSession(b.BeginSession)
	case *commandv1.Command_StepUpSession:
		return c.stepUpSession(b.StepUpSession)
	case *commandv1.Command_DeleteSession:
		return c.deleteSession(b.DeleteSession)
	case *commandv1.Command_RevokeSessions:
		return c.revokeSessions(b.RevokeSessions)
	case *commandv1.Command_AddSealingKey:
		return c.addSealingKey(b.AddSealingKey)

	case *commandv1.Command_RecordAudit:
		return c.recordAudit(b.RecordAudit)
	case *commandv1.Command_SignAudit:
		return c.signAudit(b.SignAudit)
	case *commandv1.Command_OfferAudit:
		return c.offerAudit(b.OfferAudit)
	case *commandv1.Command_AddAuditKey:
		return c.addAuditKey(b.AddAuditKey)

	case *commandv1.Command_CreateRequest:
		return c.createRequest(b.CreateRequest)
	case *commandv1.Command_UpdateRequest:
		return c.updateRequest(b.UpdateRequest)
	case *commandv1.Command_DeleteRequest:
		return c.deleteRequest(b.DeleteRequest)
	case *commandv1.Command_SubmitRequest:
		return c.submitRequest(b.SubmitRequest)
	case *commandv1.Command_WithdrawRequest:
		return c.withdrawRequest(b.WithdrawRequest)
	case *commandv1.Command_DecideRequest:
		return c.decideRequest(b.DecideRequest, in.GetOrigin())
	case *commandv1.Command_CommentRequest:
		return c.commentRequest(b.CommentRequest)
	case *commandv1.Command_DetachRequest:
		return c.detachRequest(b.DetachRequest)
	case *commandv1.Command_RetryRequest:
		return c.retryRequest(b.RetryRequest)
	case *commandv1.Command_ReserveRequest:
		return c.reserveRequest(b.ReserveRequest)
	case *commandv1.Command_CarryOutRequest:
		return c.carryOutRequest(b.CarryOutRequest)
	case *commandv1.Command_PassRequest:
		return c.passRequest(b.PassRequest)
	case *commandv1.Command_CreateCrossing:
		return c.createCrossing(b.CreateCrossing)
	case *commandv1.Command_DeleteCrossing:
		return c.deleteCrossing(b.DeleteCrossing)
	case *commandv1.Command_CreateDelegation:
		return c.createDelegation(b.CreateDelegation, in.GetOrigin())
	case *commandv1.Command_DeleteDelegation:
		return c.deleteDelegation(b.DeleteDelegation)

	case *commandv1.Command_CreateQuota:
		return c.createQuota(b.CreateQuota)
	case *commandv1.Command_UpdateQuota:
		return c.updateQuota(b.UpdateQuota)
	case *commandv1.Command_DeleteQuota:
		return c.deleteQuota(b.DeleteQuota)
	case *commandv1.Command_CreateLease:
		return c.createLease(b.CreateLease)
	case *commandv1.Command_PassLease:
		return c.passLease(b.PassLease)
	case *commandv1.Command_ShortenRoleBinding:
		return c.shortenRoleBinding(b.ShortenRoleBinding)
	case *commandv1.Command_ShortenCrossing:
		return c.shortenCrossing(b.ShortenCrossing)
	case *commandv1.Command_ShortenLease:
		return c.shortenLease(b.ShortenLease)

	case *commandv1.Command_CreateNotificationChannel:
		return c.createNotificationChannel(b.CreateNotificationChannel)
	case *commandv1.Command_UpdateNotificationChannel:
		return c.updateNotificationChannel(b.UpdateNotificationChannel)
	case *commandv1.Command_DeleteNotificationChannel:
		return c.deleteNotificationChannel(b.DeleteNotificationChannel)
	case *commandv1.Command_SetNotificationChannelSecret:
		return c.setNotificationChannelSecret(b.SetNotificationChannelSecret)

	case *commandv1.Command_CreateIdentityProvider:
		return c.createIdentityProvider(b.CreateIdentityProvider)
	case *commandv1.Command_UpdateIdentityProvider:
		return c.updateIdentityProvider(b.UpdateIdentityProvider)
	case *commandv1.Command_DeleteIdentityProvider:
		return c.deleteIdentityProvider(b.DeleteIdentityProvider)
	case *commandv1.Command_SetLocalOperators:
		return c.setLocalOperators(b.SetLocalOperators)
	case *commandv1.Command_SetIdentityProviderSecret:
		return c.setIdentityProviderSecret(b.SetIdentityProviderSecret)
	case *commandv1.Command_LinkIdentity:
		return c.linkIdentity(b.LinkIdentity)
	case *commandv1.Command_UnlinkIdentity:
		return c.unlinkIdentity(b.UnlinkIdentity)
	case *commandv1.Command_BeginProviderSession:
		return c.beginProviderSession(b.BeginProviderSession)
	case *commandv1.Command_CheckIdentity:
		return c.checkIdentity(b.CheckIdentity)
	case *commandv1.Command_AddressNotices:
		return c.addressNotices(b.AddressNotices)
	case *commandv1.Command_ReadNotifications:
		return c.readNotifications(b.ReadNotifications, in.GetOrigin())
	case *commandv1.Command_MuteTopics:
		return c.muteTopics(b.MuteTopics, in.GetOrigin())
	case *commandv1.Command_SettleDelivery:
		return c.settleDelivery(b.SettleDelivery)
	case *commandv1.Command_RetryDelivery:
		return c.retryDelivery(b.RetryDelivery)
	case *commandv1.Command_DropDelivery:
		return c.dropDelivery(b.DropDelivery)

	case *commandv1.Command_CreateOffering:
		return c.createOffering(b.CreateOffering)
	case *commandv1.Command_UpdateOffering:
		return c.updateOffering(b.UpdateOffering)
	case *commandv1.Command_DeleteOffering:
		return c.deleteOffering(b.DeleteOffering)
	case *commandv1.Command_PublishOffering:
		return c.publishOffering(b.PublishOffering)
	case *commandv1.Command_RetireOffering:
		return c.retireOffering(b.RetireOffering)
	case *commandv1.Command_CreateCalendar:
		return c.createCalendar(b.CreateCalendar)
	case *commandv1.Command_UpdateCalendar:
		return c.updateCalendar(b.UpdateCalendar)
	case *commandv1.Command_DeleteCalendar:
		return c.deleteCalendar(b.DeleteCalendar)
	case *commandv1.Command_CreateApprovalPolicy:
		return c.createApprovalPolicy(b.CreateApprovalPolicy)
	case *commandv1.Command_UpdateApprovalPolicy:
		return c.updateApprovalPolicy(b.UpdateApprovalPolicy)
	case *commandv1.Command_DeleteApprovalPolicy:
		return c.deleteApprovalPolicy(b.DeleteApprovalPolicy)

	case *commandv1.Command_CreateRole:
		return c.createRole(b.CreateRole)
	case *commandv1.Command_UpdateRole:
		return c.updateRole(b.UpdateRole)
	case *commandv1.Command_DeleteRole:
		return c.deleteRole(b.DeleteRole)
	case *commandv1.Command_SetBuiltInRoles:
		return c.setBuiltInRoles(b.SetBuiltInRoles)
	case *commandv1.Command_CreateRoleBinding:
		return c.createRoleBinding(b.CreateRoleBinding)
	case *commandv1.Command_DeleteRoleBinding:
		return c.deleteRoleBinding(b.DeleteRoleBinding)

	case *commandv1.Command_SetZoneSession:
		return c.setZoneSession(b.SetZoneSession)
	case *commandv1.Command_AcknowledgeDesired:
		return c.acknowledgeDesired(b.AcknowledgeDesired)
	case *commandv1.Command_Observe:
		return c.observe(b.Observe)
	case *commandv1.Command_AppendJournal:
		return c.appendJournal(b.AppendJournal)
	case *commandv1.Command_ConsumeWithheld:
		return c.consumeWithheld(b.ConsumeWithheld)
	case *commandv1.Command_AcknowledgeJournal:
		return c.acknowledgeJournal(b.AcknowledgeJournal)
	case *commandv1.Command_SetZoneCondition:
		return c.setZoneCondition(b.SetZoneCondition)
	}
	return nil, invalid("the command says nothing that this version knows")
}

// generation is the number of what is desired by this command.
func (c *command) generation() *apiv1.Generation {
	return &apiv1.Generation{Epoch: c.tx.Meta().Epoch, Index: c.tx.Meta().Revision}
}

// ownID is the command's id as text; what is made by a command without an id of its own has this one.
func (c *command) ownID() string { return uuidText(c.id) }

// nextID returns an id that no other command and no other call returns. It sorts behind the command's own.
func (c *command) nextID() string {
	c.ids++
	id := append([]byte(nil), c.id...)
	tail := id[len(id)-4:]
	binary.BigEndian.PutUint32(tail, binary.BigEndian.Uint32(tail)+c.ids)
	return uuidText(id)
}

// uuidText writes 16 bytes as 8-4-4-4-12 hexadecimal digits.
func uuidText(id []byte) string {
	h := hex.EncodeToString(id)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// made is a result that hands back what was made.
func made(noun proto.Message, op *apiv1.Operation) (*commandv1.Result, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(noun)
	if err != nil {
		return nil, err
	}
	return &commandv1.Result{Operation: op, Noun: b}, nil
}

// fits reports whether a number can be kept: SQLite's integers are signed.
func fits(n uint64) bool { return n <= math.MaxInt64 }

// missing reports whether err says that there is no such row.
func missing(err error) bool { return errors.Is(err, state.ErrNotFound) }

func invalid(detail string) *problem.Error {
	return problem.New(problem.Invalid, detail, "This is a fault of the sender, not of the user; report it.")
}

func notFound(kind, id string) *problem.Error {
	return problem.Newf(problem.NotFound, "List them to see which there are.", "there is no %s %s", kind, id)
}

// orNotFound gives ErrNotFound its words.
func orNotFound(err error, kind, id string) error {
	if missing(err) {
		return notFound(kind, id)
	}
	return err
}
