package libvirt

import (
	"errors"
	"fmt"
	"slices"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/naru-project/naru/zoneagent/internal/hypervisor"
)

// fatal are libvirt's errors that say that the request can never be met as it is.
var fatal = []rpc.ErrorNumber{
	rpc.ErrXMLError, rpc.ErrXMLDetail, rpc.ErrXMLInvalidSchema,
	rpc.ErrConfigUnsupported, rpc.ErrArgumentUnsupported, rpc.ErrOperationUnsupported, rpc.ErrNoSupport, rpc.ErrInvalidArg,
}

// wrap says what was being done, and marks what a retry cannot mend.
func wrap(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: %w", fmt.Sprintf(format, a...), err)
	var e rpc.Error
	if errors.Is(err, rpc.ErrUnsupported) || errors.As(err, &e) && slices.Contains(fatal, rpc.ErrorNumber(e.Code)) {
		return hypervisor.Fatal(wrapped)
	}
	return wrapped
}

// is reports whether libvirt's answer was this error.
func is(err error, number rpc.ErrorNumber) bool {
	var e rpc.Error
	return errors.As(err, &e) && e.Code == uint32(number)
}
