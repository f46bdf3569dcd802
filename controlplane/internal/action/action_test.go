package action

import "testing"

func TestADeedIsCalledAlikeAsACallAndAsACommand(t *testing.T) {
	for method, member := range map[string]string{
		"/naru.api.v1.VMService/CreateVM": "create_vm", "/naru.api.v1.RequestService/DecideRequest": "decide_request",
		"/naru.api.v1.AccessTokenService/DeleteAccessToken": "delete_access_token", "/naru.api.v1.UserService/ResetPassword": "reset_password",
	} {
		if call, command := OfMethod(method), OfCommand(member); call != command {
			t.Errorf("%s is %s as a call and %s as a command", method, call, command)
		}
	}
	for name, want := range map[string]string{"VM": "vm", "AccessToken": "access-token", "VMSample": "vm-sample", "ListEntries": "list-entries"} {
		if got := Kebab(name); got != want {
			t.Errorf("%s is written %s, not %s", name, got, want)
		}
	}
}
