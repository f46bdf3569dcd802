package fsm

import (
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
	commandv1 "github.com/naru-project/naru/proto/gen/naru/command/v1"
)

// putServer stores a server that has joined, or its new addresses and version. What is seen of it now is not stored.
func (c *command) putServer(in *commandv1.PutServer) (*commandv1.Result, error) {
	m := in.GetServer()
	was, err := c.tx.Servers.Get(m.GetId())
	switch {
	case missing(err):
		if err := mayCreate(c.tx.Servers, "server", m, nil); err != nil {
			return nil, err
		}
		m.CreatedAt = c.now
	case err != nil:
		return nil, err
	default:
		if err := mayRename("server", was, m); err != nil {
			return nil, err
		}
		m.CreatedAt = was.GetCreatedAt()
	}
	m.Role, m.Member, m.Healthy, m.AppliedIndex, m.Sessions, m.FeatureLevel = apiv1.Server_ROLE_UNSPECIFIED, false, false, "", 0, 0
	return put(c.tx.Servers, m)
}

func (c *command) deleteServer(in *commandv1.DeleteNoun) (*commandv1.Result, error) {
	m, err := stored(c.tx.Servers, "server", in.GetId(), in.GetExpectedRevision())
	if err != nil {
		return nil, err
	}
	if err := c.tell(apiv1.Event_WARNING, "server.deleted", whereabouts{}, reference("server", m), "server "+m.GetName()+" was deleted by "+c.actor); err != nil {
		return nil, err
	}
	return remove(c, c.tx.Servers, "server", m)
}
