package catalog

import (
	"math/big"
	"strings"

	"golang.org/x/text/currency"

	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// MostDigits of an amount in minor units.
const MostDigits = 18

// MonthlyCost returns what a number of VMs of one of the offering's flavors costs a month: for each the offering's own price,
// the flavor's, and the disk's by the GiB. It is nil where the offering has no prices. All amounts are whole, so is the sum.
func MonthlyCost(o *apiv1.Offering, f *apiv1.OfferedFlavor, quantity uint32) (*apiv1.Money, error) {
	if o.GetCurrency() == "" {
		return nil, nil
	}
	disk := new(big.Int).Mul(units(o.GetDiskGibMonthlyPrice()), new(big.Int).SetUint64(uint64(f.GetSize().GetDiskGib())))
	one := disk.Add(disk, units(o.GetMonthlyPrice()))
	one.Add(one, units(f.GetMonthlyPrice()))
	amount := one.Mul(one, new(big.Int).SetUint64(uint64(quantity))).String()
	if len(amount) > MostDigits {
		return nil, problem.Newf(problem.Invalid, "Ask for less, or correct the offering's prices.",
			"%d VMs of offering %s would cost %s %s a month, which is more than can be reckoned with", quantity, o.GetName(), amount, o.GetCurrency())
	}
	return &apiv1.Money{Currency: o.GetCurrency(), Amount: amount}, nil
}

// units reads an amount that the schema's pattern has checked; nothing is none.
func units(amount string) *big.Int {
	n, ok := new(big.Int).SetString(amount, 10)
	if !ok {
		return new(big.Int)
	}
	return n
}

// priced refuses prices without a currency, and currencies that are none.
func priced(o *apiv1.Offering, e *problem.Error) {
	prices := o.GetMonthlyPrice() + o.GetDiskGibMonthlyPrice()
	for _, f := range o.GetFlavors() {
		prices += f.GetMonthlyPrice()
	}
	if o.GetCurrency() == "" {
		if prices != "" {
			e.With("currency", "is required where there is a price")
		}
		return
	}
	if _, err := currency.ParseISO(o.GetCurrency()); err != nil {
		e.With("currency", o.GetCurrency()+" is no currency of ISO 4217")
	}
}

// Price writes money for people: 12,500 KRW, 12.50 USD.
func Price(m *apiv1.Money) string {
	if m.GetAmount() == "" {
		return ""
	}
	digits, behind := m.GetAmount(), ""
	if unit, err := currency.ParseISO(m.GetCurrency()); err == nil {
		if scale, _ := currency.Standard.Rounding(unit); scale > 0 {
			digits = strings.Repeat("0", max(0, scale+1-len(digits))) + digits
			behind = "." + digits[len(digits)-scale:]
			digits = digits[:len(digits)-scale]
		}
	}
	var out strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			out.WriteByte(',')
		}
		out.WriteRune(d)
	}
	return out.String() + behind + " " + m.GetCurrency()
}
