package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/pkg/client"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// typist reports whether somebody sits there who can be asked.
func (a *app) typist() bool {
	f, ok := a.in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// walk asks for what the flags left open of a request for VMs of an offering, shows what it comes to, and asks whether to go on. What
// cannot be is said, and asked for again.
func (a *app) walk(ctx context.Context, c *client.Client, d *draftFlags) (goOn bool, err error) {
	keyed := false // no key is an answer too
	steps := []func() error{
		func() error { return a.fill(ctx, &d.project, "Project", "", true) },
		func() error { return a.fillOffering(ctx, c, d) },
		func() error {
			return a.fill(ctx, &d.name, "Name of the VM; a run of # stands for its number, web-##", "", true)
		},
		func() error {
			if keyed {
				return nil
			}
			keyed = true
			return a.fillKey(ctx, d)
		},
		func() error { return a.fillQuantity(ctx, d) },
		func() error { return a.fill(ctx, &d.reason, "Why", "", true) },
	}
	for {
		for _, step := range steps {
			if err := step(); err != nil {
				return false, err
			}
		}
		m, err := a.draftOf(d)
		if err != nil {
			return false, err
		}
		r, err := c.Requests.PreviewRequest(ctx, &apiv1.PreviewRequestRequest{Request: m})
		wrong := problem.FromStatus(err)
		if err == nil && r.GetProblem() != nil {
			wrong = problem.FromProto(r.GetProblem())
		}
		switch {
		case d.forget(wrong):
			for _, f := range problem.Of(wrong).GetErrors() {
				keyed = keyed && !strings.Contains(f.GetField(), "ssh_keys")
				fmt.Fprintf(a.err, "%s %s.\n", printable(a.inField(f.GetField())), printable(f.GetDetail()))
			}
			continue
		case err != nil:
			return false, err
		}
		a.showPreview(r)
		if r.GetProblem() == nil && (d.draft || a.confirm(ctx, "Submit it? [y/N] ")) {
			return true, nil
		}
		if d.draft = a.confirm(ctx, "Keep it as a draft? [y/N] "); !d.draft {
			fmt.Fprintln(a.err, "Nothing was asked for.")
		}
		return d.draft, nil
	}
}

// forget takes back what cannot be, so that it is asked for again; false, and nothing is taken back, where some of it was not asked for.
func (d *draftFlags) forget(wrong error) bool {
	if !problem.Is(wrong, problem.Invalid) {
		return false
	}
	typed := map[string]func(string){
		"name_pattern": func(string) { d.name = "" }, "ssh_keys": func(string) { d.keys = nil },
		"quantity": func(string) { d.quantity = 0 }, "reason": func(string) { d.reason = "" },
		"form": func(part string) { // one of its fields, or all of it
			d.form = slices.DeleteFunc(d.form, func(given string) bool { return part == "" || strings.HasPrefix(given, part+"=") })
		},
	}
	var takeBack []func()
	for _, f := range problem.Of(wrong).GetErrors() {
		field := strings.TrimPrefix(strings.TrimPrefix(f.GetField(), "request."), "specification.create.")
		parts := strings.FieldsFunc(field+".", func(r rune) bool { return strings.ContainsRune("[].", r) })
		if len(parts) == 0 || typed[parts[0]] == nil {
			return false
		}
		takeBack = append(takeBack, func() { typed[parts[0]](append(parts, "")[1]) })
	}
	for _, f := range takeBack {
		f()
	}
	return len(takeBack) > 0
}

func (a *app) showPreview(r *apiv1.PreviewRequestResponse) {
	line := func(name, text string) { a.aside(name, "%s", text) }
	m := r.GetRequest()
	if x := m.GetAmount(); x != nil {
		line("takes", sizeOf(x))
	}
	costs(a.aside, m)
	if m.GetFit() != nil {
		line("room", fitOf(m.GetFit()))
		line("", m.GetFit().GetProblem().GetNext())
	}
	for _, s := range m.GetStages() {
		line("stage", s.GetName()+": "+strings.Join(s.GetApprovers(), ", "))
	}
	if p := r.GetProblem(); p != nil {
		line("not yet", p.GetDetail())
		line("", p.GetNext())
	}
}

// fill asks for a value that is not given. Nothing typed means the usual one; where there is none and one is needed, it asks again.
func (a *app) fill(ctx context.Context, value *string, what, usual string, needed bool) error {
	for *value == "" {
		question := what
		if usual != "" {
			question += " [" + usual + "]"
		}
		typed, err := a.line(ctx, printable(question)+": ", false)
		if err != nil {
			return err
		}
		if *value = cmp.Or(strings.TrimSpace(typed), usual); !needed {
			return nil
		}
	}
	return nil
}

func (a *app) fillQuantity(ctx context.Context, d *draftFlags) error {
	if d.quantity > 0 {
		return nil
	}
	for {
		text := ""
		if err := a.fill(ctx, &text, "How many", "1", true); err != nil {
			return err
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err == nil && n > 0 {
			d.quantity = uint32(n)
			return nil
		}
		fmt.Fprintf(a.err, "%s is no number of VMs.\n", printable(text))
	}
}

// choose asks for one of some names until one of them is given; of none it takes what is typed.
func (a *app) choose(ctx context.Context, value *string, what string, names []string) error {
	usual := ""
	if len(names) == 1 {
		usual = names[0]
	}
	if len(names) > 0 {
		what += " (" + strings.Join(names, ", ") + ")"
	}
	for {
		if err := a.fill(ctx, value, what, usual, true); err != nil || len(names) == 0 || slices.Contains(names, *value) {
			return err
		}
		fmt.Fprintf(a.err, "%s is none of these.\n", printable(*value))
		*value = ""
	}
}

// fillKey asks for the SSH key with which people get into the VM: usually the caller's own.
func (a *app) fillKey(ctx context.Context, d *draftFlags) error {
	if len(d.keys) > 0 {
		return nil
	}
	usual := ""
	if home, err := os.UserHomeDir(); err == nil {
		for _, name := range []string{"id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"} {
			if file := filepath.Join(home, ".ssh", name); usual == "" && isFile(file) {
				usual = "@" + file
			}
		}
	}
	for {
		key := ""
		if err := a.fill(ctx, &key, "SSH key, as a line or @FILE; - for none", cmp.Or(usual, "-"), true); err != nil || key == "-" {
			return err
		}
		line, err := a.argument(key)
		if _, _, _, _, bad := ssh.ParseAuthorizedKey([]byte(line)); err == nil && bad == nil {
			d.keys = []string{strings.TrimSpace(line)}
			return nil
		}
		fmt.Fprintf(a.err, "%s is no public SSH key.\n", printable(key))
	}
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// fillOffering asks for the offering, and for what it leaves to choose: its zone, its flavor, its form.
func (a *app) fillOffering(ctx context.Context, c *client.Client, d *draftFlags) error {
	var known []string
	if d.offering == "" {
		r, err := c.Offerings.ListOfferings(ctx, &apiv1.ListOfferingsRequest{Filter: "state=PUBLISHED", PageSize: 1000})
		if err != nil {
			return err
		}
		if len(r.GetOfferings()) == 0 {
			return usagef("there is nothing in the catalogue that you could ask for")
		}
		for _, o := range r.GetOfferings() {
			fmt.Fprintf(a.err, "  %-24s %s\n", printable(o.GetName()), printable(inLanguage(o.GetTitle())))
			known = append(known, o.GetName())
		}
		if err := a.choose(ctx, &d.offering, "Offering", known); err != nil {
			return err
		}
	}
	r, err := c.Offerings.GetOffering(ctx, &apiv1.GetOfferingRequest{Offering: d.offering})
	if err != nil {
		return err
	}
	o := r.GetOffering()
	zones := o.GetZones()
	if len(zones) == 0 && d.zone == "" {
		zones = zonesOf(ctx, c)
	}
	if err := a.choose(ctx, &d.zone, "Zone", zones); err != nil {
		return err
	}
	if flavors := o.GetFlavors(); len(flavors) > 1 {
		var names []string
		for _, f := range flavors {
			price := ""
			if f.GetMonthlyPrice() != "" {
				price = ", " + catalog.Price(&apiv1.Money{Amount: f.GetMonthlyPrice(), Currency: o.GetCurrency()}) + " a month"
			}
			fmt.Fprintf(a.err, "  %-24s %s%s\n", printable(f.GetFlavor()), sizeOf(f.GetSize()), printable(price))
			names = append(names, f.GetFlavor())
		}
		if err := a.choose(ctx, &d.flavor, "Flavor", names); err != nil {
			return err
		}
	}
	return a.fillForm(ctx, d, o.GetForm())
}

// zonesOf returns the names of the zones that the caller sees; none where they may not look, who may know a name all the same.
func zonesOf(ctx context.Context, c *client.Client) (names []string) {
	r, err := c.Zones.ListZones(ctx, &apiv1.ListZonesRequest{PageSize: 1000})
	if err != nil {
		return nil
	}
	for _, z := range r.GetZones() {
		names = append(names, z.GetName())
	}
	return names
}

// fillForm asks for the fields of an offering's form that are not given: those that it requires first. The form itself, a JSON
// Schema, is checked by the control plane.
func (a *app) fillForm(ctx context.Context, d *draftFlags, form string) error {
	fields, err := readForm(form)
	if err != nil {
		return fmt.Errorf("the form of offering %s: %w", d.offering, err)
	}
	for _, name := range fields.names() {
		if slices.ContainsFunc(d.form, func(given string) bool { return strings.HasPrefix(given, name+"=") }) {
			continue
		}
		field := fields.Properties[name]
		what, usual, value := fields.title(name), "", ""
		if len(field.Enum) > 0 {
			what += " (" + strings.Trim(fmt.Sprint(field.Enum), "[]") + ")"
		}
		if field.Type == "array" {
			what += ", with commas between"
		}
		if field.Default != nil {
			usual = typedAs(field.Default)
		}
		if err := a.fill(ctx, &value, what, usual, slices.Contains(fields.Required, name)); err != nil {
			return err
		}
		if value == "" {
			continue
		}
		var typed any
		switch {
		case field.Type == "string": // else what looks like a number would become one
			typed = value
		case field.Type == "array" && !strings.HasPrefix(value, "["):
			typed = listed(value)
		}
		if typed != nil {
			b, err := json.Marshal(typed)
			if err != nil {
				return err
			}
			value = string(b)
		}
		d.form = append(d.form, name+"="+value)
	}
	return nil
}

// listed are texts that were typed with commas between.
func listed(text string) (all []string) {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}

// typedAs is a field's default as somebody would type it.
func typedAs(value any) string {
	all, ok := value.([]any)
	if !ok {
		return fmt.Sprint(value)
	}
	var texts []string
	for _, one := range all {
		texts = append(texts, fmt.Sprint(one))
	}
	return strings.Join(texts, ", ")
}
