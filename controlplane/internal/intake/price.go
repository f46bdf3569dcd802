package intake

import (
	"errors"
	"math/big"

	"google.golang.org/protobuf/proto"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/controlplane/internal/state"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// price is what a VM costs a month with a flavor of a size, by the version of the offering that it was got from. It is nil where that is
// not known: the VM was made directly, or the offering has no such flavor, or no price.
func price(tx *state.Tx, vm *apiv1.VM, flavor string, size *apiv1.Resources) (*apiv1.Money, error) {
	if vm.GetOfferingId() == "" {
		return nil, nil
	}
	o, err := tx.Offerings.Version(vm.GetOfferingId(), vm.GetOfferingVersion())
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range o.GetFlavors() {
		if f.GetFlavor() == flavor && proto.Equal(f.GetSize(), size) {
			return catalog.MonthlyCost(o, f, 1)
		}
	}
	return nil, nil
}

// costs writes into a request that changes a VM what that costs, as far as it is known.
func costs(tx *state.Tx, r *apiv1.Request, vm *apiv1.VM) (err error) {
	switch ask := r.GetSpecification().GetWhat().(type) {
	case *apiv1.RequestSpecification_Resize:
		if r.MonthlyCostBefore, err = price(tx, vm, vm.GetFlavor(), vm.GetSize()); err != nil {
			return err
		}
		r.MonthlyCost, err = price(tx, vm, ask.Resize.GetFlavor(), ask.Resize.GetSize())
	case *apiv1.RequestSpecification_Extend:
		if r.MonthlyCost, err = price(tx, vm, vm.GetFlavor(), vm.GetSize()); err == nil {
			r.ExtensionCost = ofDays(r.GetMonthlyCost(), ask.Extend.GetDays())
		}
	}
	return err
}

// ofDays is what so many days cost, by a month of 30, rounded up; nil for what is not known, or has more digits than an amount may have.
func ofDays(month *apiv1.Money, days uint32) *apiv1.Money {
	n, ok := new(big.Int).SetString(month.GetAmount(), 10)
	if !ok {
		return nil
	}
	n.Mul(n, new(big.Int).SetUint64(uint64(days)))
	n.Div(n.Add(n, big.NewInt(29)), big.NewInt(30))
	if len(n.String()) > catalog.MostDigits {
		return nil
	}
	return &apiv1.Money{Currency: month.GetCurrency(), Amount: n.String()}
}
