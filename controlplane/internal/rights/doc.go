// Package rights decides what those who are known may do. It is the only one that does, for every method and every object,
// whichever way a call came; what nothing permits is refused.
//
// A role is a set of permissions; a binding gives it to a user or a group in a place: the federation, an organization with
// all that stands below it, a project, a zone. For each binding the policy engine (Cedar) is asked with the caller, the
// permission and the place; the role's policy may permit, and Naru's own rules forbid. What comes of it is a Reach: where the
// caller has the permission. An object is theirs to call the method on where it lies within the reach, and a list is
// narrowed to the reach before it is asked, so that a list, a look, a watch and a change can never answer differently.
//
// A role's condition may ask for the project, organization and zone of an object, and for nothing else of it; that is what
// keeps a reach a matter of places.
//
// The package reads nothing: who asks for a decision brings what it rests on, from one snapshot. It is never asked when a
// command is applied.
package rights
