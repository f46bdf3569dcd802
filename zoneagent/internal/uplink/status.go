package uplink

import "time"

// Words for how the link stands at this agent, beside revoked and quarantined.
const (
	// StandingBy: another agent of the zone owns the link, or nobody does yet.
	StandingBy = "standing by"
	// Connecting: this one owns it, and has no session.
	Connecting = "connecting"
	Connected  = "connected"
)

// Status is how the link stands at this agent.
type Status struct {
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Why the last session ended or the control plane lets this agent in no more; empty where there is nothing to tell.
	Why string `json:"why,omitempty"`
}

// Status tells how the link stands at this agent.
func (u *Uplink) Status() Status { return *u.state.status.Load() }

// DownSince tells since when this agent owns the link and has no session; zero where it has one, or another agent owns the link.
func (u *Uplink) DownSince() time.Time {
	if s := u.Status(); s.State != StandingBy && s.State != Connected {
		return s.Since
	}
	return time.Time{}
}

// turn notes how the link stands from now on, or why it still does.
func (s *State) turn(state string, why error) {
	next := &Status{State: state, Since: time.Now()}
	if why != nil {
		next.Why = why.Error()
	}
	if was := s.status.Load(); was != nil && was.State == state {
		next.Since = was.Since
	}
	s.status.Store(next)
}
