package cli

import (
	"cmp"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/naru-project/naru/pkg/notice"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

// language is that of whoever types, as their environment says. The program's own words are English; what others wrote in
// several languages, and notifications, are shown in theirs.
func language() string {
	return notice.Language(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG")), notice.English)
}

// inLanguage is a text as this reader has it: in their language, or else in the one in which it was written.
func inLanguage(t *apiv1.Text) string {
	if language() == notice.Korean {
		return cmp.Or(t.GetKo(), t.GetEn())
	}
	return cmp.Or(t.GetEn(), t.GetKo())
}

// titled is a name with what people call it: web-server (Web server).
func titled(name string, t *apiv1.Text) string {
	if title := inLanguage(t); title != "" && title != name {
		return name + " (" + title + ")"
	}
	return name
}

// formSchema is what an offering asks for, a JSON Schema, as far as it is read here: the control plane checks what is filled
// in.
type formSchema struct {
	Properties map[string]struct {
		Title, Description string
		Titles             struct{ Ko, En string }
		Type               any
		Enum               []any
		Default            any
	}
	Required []string
}

func readForm(schema string) (f formSchema, err error) {
	if schema != "" {
		err = json.Unmarshal([]byte(schema), &f)
	}
	return f, err
}

// names are those of the fields: of those that are required first.
func (f formSchema) names() []string {
	return slices.SortedFunc(maps.Keys(f.Properties), func(x, y string) int {
		needed := func(name string) int { return 1 - btoi(slices.Contains(f.Required, name)) }
		return cmp.Or(needed(x)-needed(y), strings.Compare(x, y))
	})
}

// title is what people call a field.
func (f formSchema) title(name string) string {
	field := f.Properties[name]
	return cmp.Or(inLanguage(&apiv1.Text{Ko: field.Titles.Ko, En: field.Titles.En}), field.Title, field.Description, name)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
