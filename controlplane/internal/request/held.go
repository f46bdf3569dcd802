package request

import (
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Whole reports whether what is known of a VM is enough to send it down: one that is held is not.
func Whole(vm *apiv1.VM) bool {
	return vm.GetSize() != nil && vm.GetProjectId() != "" && vm.GetImageSha256() != ""
}

// NotWhole refuses what cannot be done to a VM that is held.
func NotWhole(vm *apiv1.VM) *problem.Error {
	return problem.Newf(problem.WrongState, "Delete it: naru vm delete "+vm.GetName()+". If it is to stay: naru event list --filter 'type=vm.held AND target_id="+vm.GetId()+"' tells why it is held, and what to do.",
		"VM %s was found in its zone, is held, and belongs to no project", vm.GetName())
}
