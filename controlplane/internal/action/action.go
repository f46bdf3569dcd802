// Package action is what the record calls a deed: noun.verb, alike whether it was done, by a command, or refused, as a call.
package action

import "strings"

// OfCommand is noun.verb of a command, by its member of Command.body: vm.create of create_vm. Where a command's name says less than
// the method by which it is asked for, it is the name of the permission.
func OfCommand(member string) string {
	switch member {
	case "bootstrap":
		return "federation.found"
	case "prune":
		return "state.prune"
	case "ask_to_join":
		return "member.ask"
	case "accept_join":
		return "member.accept"
	case "revoke":
		return "member.revoke"
	case "begin_session", "begin_provider_session":
		return "session.log-in"
	case "step_up_session":
		return "session.step-up"
	case "revoke_sessions":
		return "session.revoke"
	case "reset_password":
		return "user.reset-password"
	case "change_password":
		return "user.change-password"
	case "enroll_authenticator":
		return "user.enroll-authenticator"
	case "confirm_authenticator":
		return "user.confirm-authenticator"
	case "remove_authenticator":
		return "user.remove-authenticator"
	case "add_group_member":
		return "group.add-member"
	case "remove_group_member":
		return "group.remove-member"
	case "carry_out_request":
		return "request.carry-out"
	case "set_notification_channel_secret":
		return "notification-channel.set-secret"
	case "set_identity_provider_secret":
		return "identity-provider.set-secret"
	case "read_notifications":
		return "notification.read"
	case "mute_topics":
		return "notification.mute"
	}
	verb, noun, ok := strings.Cut(member, "_")
	if !ok {
		return verb
	}
	return strings.ReplaceAll(noun, "_", "-") + "." + verb
}

// OfMethod is noun.verb of a method: vm.list of /naru.api.v1.VMService/ListVMs, audit.list-entries of ListAuditEntries.
func OfMethod(method string) string {
	path, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	noun := strings.TrimSuffix(path[strings.LastIndexByte(path, '.')+1:], "Service")
	plural := noun + "s"
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		plural = stem + "ies"
	}
	verb := strings.Replace(name, plural, "", 1)
	if verb == name {
		verb = strings.Replace(name, noun, "", 1)
	}
	verb = strings.TrimSuffix(strings.TrimSuffix(verb, "To"), "From") // AttachToRequest
	if verb == "" {
		verb = name
	}
	return Kebab(noun) + "." + Kebab(verb)
}

// Kebab writes AccessToken as access-token, VM as vm and VMSample as vm-sample.
func Kebab(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if upper := name[i] >= 'A' && name[i] <= 'Z'; !upper {
			b.WriteByte(name[i])
			continue
		}
		before := i > 0 && (name[i-1] < 'A' || name[i-1] > 'Z')
		after := i > 0 && i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z'
		if before || after {
			b.WriteByte('-')
		}
		b.WriteByte(name[i] - 'A' + 'a')
	}
	return b.String()
}
