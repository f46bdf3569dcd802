package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/naru-project/naru/pkg/grade"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// Offering is one version of an offering that was found whole. It is safe for concurrent use.
type Offering struct {
	*apiv1.Offering
	Form *Form

	fragments []*fragment
}

// Compile checks what an offering says: its form, its software, its prices, its lease. What its names stand for is for who
// reads the state. The error is a problem INVALID that names each field.
func Compile(o *apiv1.Offering) (*Offering, error) {
	e := problem.New(problem.Invalid, "", "Correct the fields named and send it again.")
	priced(o, e)
	lease(o.GetLease(), e)
	flavors := map[string]bool{}
	for i, f := range o.GetFlavors() {
		if flavors[f.GetFlavor()] {
			e.With(fmt.Sprintf("flavors[%d]", i), "names flavor "+f.GetFlavor()+" twice")
		}
		flavors[f.GetFlavor()] = true
	}
	out := &Offering{Offering: o}
	form, err := CompileForm(o.GetForm())
	if err != nil {
		e.With("form", err.Error())
	}
	out.Form = form
	names := map[string]bool{}
	for i, s := range o.GetSoftware() {
		field := fmt.Sprintf("software[%d]", i)
		if names[s.GetName()] {
			e.With(field, "is named "+s.GetName()+", as another one is")
		}
		names[s.GetName()] = true
		f, err := parse(s, form)
		if err != nil {
			e.With(field+".user_data", err.Error())
			continue
		}
		out.fragments = append(out.fragments, f)
	}
	if len(e.Problem.GetErrors()) == 0 {
		if _, err := merge(out.fragments, Values{}); err != nil {
			e.With("software", err.Error())
		}
	}
	if len(e.Problem.GetErrors()) > 0 {
		return nil, said(e)
	}
	return out, nil
}

// lease refuses terms that contradict one another.
func lease(t *apiv1.LeaseTerms, e *problem.Error) {
	switch longest := t.GetLongestDays(); {
	case longest > 0 && t.GetDefaultDays() == 0:
		e.With("lease.default_days", fmt.Sprintf("is required where longest_days is set: at most %d", longest))
	case longest > 0 && t.GetDefaultDays() > longest:
		e.With("lease.default_days", fmt.Sprintf("is more than longest_days, which is %d", longest))
	}
}

// said makes what is wrong with the fields the detail of a problem.
func said(e *problem.Error) *problem.Error {
	var all []string
	for _, f := range e.Problem.GetErrors() {
		all = append(all, f.GetField()+" "+f.GetDetail())
	}
	e.Problem.Detail = strings.Join(all, "; ")
	return e
}

// Wish is what somebody asks of an offering.
type Wish struct {
	// Flavor may be empty where the offering has only one.
	Flavor   string
	Quantity uint32
	// Filled is a JSON object: what was filled into the form.
	Filled string
	// Without is optional software that is left out.
	Without []string
	// LeaseDays is 0 for what the offering proposes.
	LeaseDays uint32
}

// Bid is what a wish comes to.
type Bid struct {
	Flavor *apiv1.OfferedFlavor
	// Amount and Cost are of all of it. Cost is nil where there is no price.
	Amount *apiv1.Resources
	Cost   *apiv1.Money
	// UserData is one cloud-config, or empty.
	UserData string
	// LeaseDays is 0 for no end.
	LeaseDays uint32
}

// Bid says what a wish comes to, or why it cannot be granted: a problem that names the fields.
func (o *Offering) Bid(w Wish) (*Bid, error) {
	quantity := max(w.Quantity, 1)
	flavor, err := o.flavor(w.Flavor)
	if err != nil {
		return nil, err
	}
	days, err := o.lease(w.LeaseDays)
	if err != nil {
		return nil, err
	}
	values, err := o.Form.Check(w.Filled)
	if err != nil {
		return nil, err
	}
	fragments, err := o.without(w.Without)
	if err != nil {
		return nil, err
	}
	userData, err := merge(fragments, values)
	if err != nil {
		return nil, problem.New(problem.TooLarge, err.Error(), "Fill in less, or leave software out.").With("form", "makes the software too large")
	}
	cost, err := MonthlyCost(o.Offering, flavor, quantity)
	if err != nil {
		return nil, err
	}
	amount := &apiv1.Resources{}
	for name, part := range map[string]struct {
		one uint32
		all *uint32
	}{
		"cores":      {flavor.GetSize().GetCores(), &amount.Cores},
		"memory_mib": {flavor.GetSize().GetMemoryMib(), &amount.MemoryMib},
		"disk_gib":   {flavor.GetSize().GetDiskGib(), &amount.DiskGib},
	} {
		all := uint64(part.one) * uint64(quantity)
		if all > 1<<31 {
			return nil, problem.Newf(problem.Invalid, "Ask for less at once.", "%d VMs of flavor %s have more %s than can be reckoned with", quantity, flavor.GetFlavor(), name).
				With("quantity", "is too large for this flavor")
		}
		*part.all = uint32(all)
	}
	return &Bid{Flavor: flavor, Amount: amount, Cost: cost, UserData: userData, LeaseDays: days}, nil
}

func (o *Offering) flavor(name string) (*apiv1.OfferedFlavor, error) {
	if name == "" && len(o.GetFlavors()) == 1 {
		return o.GetFlavors()[0], nil
	}
	var names []string
	for _, f := range o.GetFlavors() {
		if name != "" && (f.GetFlavor() == name || f.GetFlavorId() == name) {
			return f, nil
		}
		names = append(names, f.GetFlavor())
	}
	return nil, problem.Newf(problem.Invalid, "Choose one of them.", "offering %s can be had in %s", o.GetName(), strings.Join(names, ", ")).
		With("flavor", "is one of "+strings.Join(names, ", "))
}

func (o *Offering) lease(days uint32) (uint32, error) {
	longest := o.GetLease().GetLongestDays()
	if days == 0 {
		return o.GetLease().GetDefaultDays(), nil
	}
	if longest > 0 && days > longest {
		return 0, problem.Newf(problem.Invalid, "Ask for less; it may be extended up to that.", "offering %s can be had for %d days at most", o.GetName(), longest).
			With("lease_days", fmt.Sprintf("is at most %d", longest))
	}
	return days, nil
}

// without leaves optional software out.
func (o *Offering) without(names []string) ([]*fragment, error) {
	for i, name := range names {
		at := slices.IndexFunc(o.GetSoftware(), func(s *apiv1.Software) bool { return s.GetName() == name })
		field := fmt.Sprintf("without_software[%d]", i)
		if at < 0 {
			return nil, problem.Newf(problem.Invalid, "naru catalog show "+o.GetName()+" lists it.", "offering %s has no software %s", o.GetName(), name).With(field, "is not in the offering")
		}
		if !o.GetSoftware()[at].GetOptional() {
			return nil, problem.Newf(problem.Invalid, "Leave it in, or ask for another offering.", "software %s of offering %s is not optional", name, o.GetName()).With(field, "cannot be left out")
		}
	}
	var out []*fragment
	for _, f := range o.fragments {
		if !slices.Contains(names, f.name) {
			out = append(out, f)
		}
	}
	return out, nil
}

// Fits refuses a flavor whose size is too small for an image.
func Fits(flavor string, size *apiv1.Resources, image *apiv1.Image) error {
	e := problem.New(problem.Invalid, "", "Choose a larger flavor.")
	if size.GetMemoryMib() < image.GetMinMemoryMib() {
		e.Problem.Detail = fmt.Sprintf("image %s needs %d MiB of memory, and flavor %s has %d", image.GetName(), image.GetMinMemoryMib(), flavor, size.GetMemoryMib())
		e = e.With("flavor", "has too little memory for the image")
	}
	if size.GetDiskGib() < image.GetMinDiskGib() {
		e.Problem.Detail = fmt.Sprintf("image %s needs a disk of %d GiB, and flavor %s has %d", image.GetName(), image.GetMinDiskGib(), flavor, size.GetDiskGib())
		e = e.With("flavor", "has too small a disk for the image")
	}
	if len(e.Problem.GetErrors()) == 0 {
		return nil
	}
	return e
}

// MayRunIn refuses a zone that an offering is not offered for: by name, by the grades that it may run in, or because its
// image is of a higher grade.
func MayRunIn(o *apiv1.Offering, image *apiv1.Image, zone *apiv1.Zone) error {
	if len(o.GetZones()) > 0 && !slices.Contains(o.GetZones(), zone.GetName()) {
		return problem.Newf(problem.Invalid, "Choose one of these zones, or another offering.", "offering %s is offered for %s, not for zone %s",
			o.GetName(), strings.Join(o.GetZones(), ", "), zone.GetName()).With("zone", "is one of "+strings.Join(o.GetZones(), ", "))
	}
	is := grade.Highest(zone.GetGrade())
	if len(o.GetGrades()) > 0 && !slices.Contains(o.GetGrades(), is) {
		var words []string
		for _, g := range o.GetGrades() {
			words = append(words, grade.Word(g))
		}
		return problem.Newf(problem.GradeForbids, "Choose a zone of such a grade, or another offering.", "offering %s may run in zones that are %s, and zone %s is %s",
			o.GetName(), strings.Join(words, " or "), zone.GetName(), grade.Word(is)).With("zone", "is "+grade.Word(is))
	}
	if !grade.MayStand(image.GetGrade(), is) {
		return problem.Newf(problem.GradeForbids, "Choose a zone of that grade or a higher one.", "image %s of offering %s is %s, and zone %s is %s",
			image.GetName(), o.GetName(), grade.Word(image.GetGrade()), zone.GetName(), grade.Word(is)).With("zone", "is "+grade.Word(is))
	}
	return nil
}
