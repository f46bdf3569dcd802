package catalog_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/naru-project/naru/controlplane/internal/catalog"
	"github.com/naru-project/naru/pkg/problem"
	apiv1 "github.com/naru-project/naru/proto/gen/naru/api/v1"
)

const form = `{
  "type": "object",
  "properties": {
    "service_name": {"type": "string", "title": "서비스 이름", "titles": {"ko": "서비스 이름", "en": "Service name"}, "pattern": "[a-z][a-z0-9-]{0,31}"},
    "workers": {"type": "integer", "minimum": 1, "maximum": 64, "default": 4},
    "tls": {"type": "boolean", "default": true},
    "domains": {"type": "array", "items": {"type": "string", "format": "hostname"}, "maxItems": 3, "default": []},
    "note": {"type": "string"}
  },
  "required": ["service_name"]
}`

const nginx = `#cloud-config
packages: [nginx, curl]
write_files:
  - path: /etc/nginx/conf.d/site.conf
    content: |
      # ${form.service_name}
      worker_processes ${form.workers};
runcmd:
  - systemctl enable nginx
  - [logger, -t, naru, "made ${form.service_name}"]
`

// web is an offering without fault.
func web() *apiv1.Offering {
	return &apiv1.Offering{
		Name: "web", Image: "tiny", Currency: "KRW", MonthlyPrice: "10000", DiskGibMonthlyPrice: "100", Form: form,
		Flavors: []*apiv1.OfferedFlavor{
			{Flavor: "s1", MonthlyPrice: "30000", Size: &apiv1.Resources{Cores: 1, MemoryMib: 1024, DiskGib: 10}},
			{Flavor: "m1", MonthlyPrice: "60000", Size: &apiv1.Resources{Cores: 2, MemoryMib: 4096, DiskGib: 20}},
		},
		Software: []*apiv1.Software{
			{Name: "nginx", UserData: nginx},
			{Name: "agent", Optional: true, UserData: "packages: [curl, telegraf]\nruncmd:\n  - [systemctl, start, telegraf]\n"},
		},
		Lease: &apiv1.LeaseTerms{DefaultDays: 90, LongestDays: 365},
	}
}

func compile(t interface {
	Helper()
	Fatal(...any)
}, o *apiv1.Offering) *catalog.Offering {
	t.Helper()
	c, err := catalog.Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatIsAskedComesToAPriceAnAmountAndUserData(t *testing.T) {
	bid, err := compile(t, web()).Bid(catalog.Wish{Flavor: "m1", Quantity: 3, Filled: `{"service_name":"minwon"}`})
	if err != nil {
		t.Fatal(err)
	}
	if want := (&apiv1.Money{Currency: "KRW", Amount: "216000"}); !proto.Equal(bid.Cost, want) { // 3 × (10000 + 60000 + 20×100)
		t.Errorf("it costs %v, not %v", bid.Cost, want)
	}
	if want := (&apiv1.Resources{Cores: 6, MemoryMib: 12288, DiskGib: 60}); !proto.Equal(bid.Amount, want) {
		t.Errorf("it is %v, not %v", bid.Amount, want)
	}
	if bid.LeaseDays != 90 {
		t.Errorf("it lasts %d days", bid.LeaseDays)
	}
	const want = `#cloud-config
packages: [nginx, curl, telegraf]
write_files:
  - path: /etc/nginx/conf.d/site.conf
    content: |
      # minwon
      worker_processes 4;
runcmd:
  - systemctl enable nginx
  - [logger, -t, naru, "made minwon"]
  - [systemctl, start, telegraf]
`
	if bid.UserData != want {
		t.Errorf("the guest is given\n%s\nnot\n%s", bid.UserData, want)
	}
}

func TestOptionalSoftwareCanBeLeftOutAndOtherCannot(t *testing.T) {
	o := compile(t, web())
	bid, err := o.Bid(catalog.Wish{Flavor: "s1", Filled: `{"service_name":"a"}`, Without: []string{"agent"}})
	if err != nil || strings.Contains(bid.UserData, "telegraf") {
		t.Errorf("%v: %v", err, bid)
	}
	for name, want := range map[string]string{"nginx": "not optional", "mysql": "no software mysql"} {
		if _, err := o.Bid(catalog.Wish{Flavor: "s1", Filled: `{"service_name":"a"}`, Without: []string{name}}); !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestWhatAnOfferingDoesNotGiveIsRefusedWithTheWayOut(t *testing.T) {
	o := compile(t, web())
	for want, w := range map[string]catalog.Wish{
		"can be had in s1, m1":      {Filled: `{"service_name":"a"}`},
		"s1, m1":                    {Flavor: "huge", Filled: `{"service_name":"a"}`},
		"365 days at most":          {Flavor: "s1", LeaseDays: 366, Filled: `{"service_name":"a"}`},
		"service_name is required":  {Flavor: "s1"},
		"form.nonsense is no field": {Flavor: "s1", Filled: `{"service_name":"a","nonsense":1}`},
		"form.workers":              {Flavor: "s1", Filled: `{"service_name":"a","workers":65}`},
		"workers is a whole number": {Flavor: "s1", Filled: `{"service_name":"a","workers":1.5}`},
		"tls is true or false":      {Flavor: "s1", Filled: `{"service_name":"a","tls":"yes"}`},
		"service_name does not":     {Flavor: "s1", Filled: `{"service_name":"A b"}`},
		"not a JSON object":         {Flavor: "s1", Filled: `[1]`},
		"has service_name twice":    {Flavor: "s1", Filled: `{"service_name":"a","service_name":"b"}`},
		"something follows":         {Flavor: "s1", Filled: `{"service_name":"a"} {}`},
		"domains.1":                 {Flavor: "s1", Filled: `{"service_name":"a","domains":["a.kr","-"]}`},
		"form.domains":              {Flavor: "s1", Filled: `{"service_name":"a","domains":["a","b","c","d"]}`},
	} {
		if _, err := o.Bid(w); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetDetail(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestAllThatIsWrongWithAFormIsToldAtOnce(t *testing.T) {
	_, err := compile(t, web()).Bid(catalog.Wish{Flavor: "s1", Filled: `{"tls":"yes","workers":65,"domains":["a.kr","-"],"zzz":1}`})
	var fields []string
	for _, f := range problem.Of(err).GetErrors() {
		fields = append(fields, f.GetField())
	}
	slices.Sort(fields)
	if got := strings.Join(fields, " "); got != "form.domains.1 form.service_name form.tls form.workers form.zzz" {
		t.Errorf("%s: %v", got, err)
	}
	_, err = compile(t, web()).Bid(catalog.Wish{Flavor: "s1", Filled: `{"service_name":7}`}) // sent, and so not missing
	if got := problem.Of(err).GetErrors(); len(got) != 1 || got[0].GetField() != "form.service_name" || got[0].GetDetail() != "is a text" {
		t.Errorf("%v", got)
	}
}

// Whatever somebody fills in, it is one text in the place that it was written for, and changes nothing around it.
func TestWhatIsFilledInStaysAText(t *testing.T) {
	o := web()
	o.Form = `{"type":"object","required":["text"],"properties":{"text":{"type":"string","pattern":".*"}}}`
	o.Software = []*apiv1.Software{{Name: "a", UserData: "write_files:\n  - path: /srv/a\n    content: |\n      before ${form.text} behind\n  - {path: /srv/b, content: \"${form.text}\"}\nruncmd:\n  - [touch, \"${form.text}\"]\n"}}
	c := compile(t, o)
	hostile := rapid.OneOf(rapid.StringN(0, 200, -1), rapid.SampledFrom([]string{
		"'; rm -rf / #", "\"}\nruncmd: [x]", "${form.text}", "${form.other}", "*alias", "&anchor", "!!python/object", "|", "null", "true", "0x10", "%", "@",
		"a\u2028b", "a\x00b", "a\r\nb", "- x", "? y", "key: value", "#comment", "\u202Eevil", "가나다", "`id`", "$(id)", "{{ ds }}", "---", "...", "~", " ", "\ufeff",
	}))
	rapid.Check(t, func(t *rapid.T) {
		text := hostile.Draw(t, "text")
		filled, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		bid, err := c.Bid(catalog.Wish{Flavor: "s1", Filled: string(filled)})
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if strings.ContainsAny(text, "\n\r\x00\u2028\u2029") {
			t.Fatalf("%q was taken", text)
		}
		json.Unmarshal(filled, &struct{ Text *string }{&text}) // what is not UTF-8 was replaced
		var got struct {
			WriteFiles []struct{ Path, Content string } `yaml:"write_files"`
			Runcmd     [][]string
		}
		decoder := yaml.NewDecoder(strings.NewReader(bid.UserData))
		decoder.KnownFields(true)
		if err := decoder.Decode(&got); err != nil {
			t.Fatalf("%q: %v\n%s", text, err, bid.UserData)
		}
		if len(got.WriteFiles) != 2 || got.WriteFiles[0].Content != "before "+text+" behind\n" || got.WriteFiles[1].Content != text ||
			len(got.Runcmd) != 1 || len(got.Runcmd[0]) != 2 || got.Runcmd[0][1] != text {
			t.Fatalf("%q came out as %+v\n%s", text, got, bid.UserData)
		}
	})
}

// A pattern is of the whole text, however it was written.
func TestAPatternHoldsForTheWholeText(t *testing.T) {
	for _, pattern := range []string{`[a-z]+`, `^[a-z]+$`, `^a|[a-z]+$`} {
		f, err := catalog.CompileForm(fmt.Sprintf(`{"type":"object","properties":{"x":{"type":"string","pattern":%q}}}`, pattern))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Check(`{"x":"abc"}`); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for _, bad := range []string{"abc; rm", "a;b", " a"} {
			if _, err := f.Check(`{"x":"` + bad + `"}`); !problem.Is(err, problem.Invalid) {
				t.Errorf("%s takes %q", pattern, bad)
			}
		}
	}
}

func TestAFormThatIsMoreThanAFormIsRefused(t *testing.T) {
	field := func(f string) string { return `{"type":"object","properties":{"x":` + f + `}}` }
	for want, schema := range map[string]string{
		"the form has $ref":              `{"$ref":"https://evil.example/schema.json"}`,
		"field x has $ref":               field(`{"type":"string","$ref":"file:///etc/passwd"}`),
		"field x: its type":              field(`{"$ref":"#"}`),
		"the form has $defs":             `{"type":"object","$defs":{},"properties":{"x":{"type":"string"}}}`,
		"the form has allOf":             `{"type":"object","allOf":[],"properties":{"x":{"type":"string"}}}`,
		"numbers are whole":              field(`{"type":"number"}`),
		"boolean or array":               field(`{"type":"object","properties":{}}`),
		"a list of texts":                field(`{"type":"array","items":{"type":"array","items":{"type":"string"}}}`),
		"no properties":                  `{"type":"object"}`,
		"1 to 64":                        `{"type":"object","properties":{}}`,
		"cannot be called \"X\"":         `{"type":"object","properties":{"X":{"type":"string"}}}`,
		"no regular expression":          field(`{"type":"string","pattern":"(?=a)"}`),
		"is required and is no field":    `{"type":"object","required":["y"],"properties":{"x":{"type":"string"}}}`,
		"its format is one of":           field(`{"type":"string","format":"regex"}`),
		"default of field x":             field(`{"type":"integer","minimum":3,"default":1}`),
		"it is no JSON Schema: /propert": field(`{"type":"string","maxLength":"long"}`),
		"the form is not a JSON object":  `[]`,
		"additionalProperties is false":  `{"type":"object","additionalProperties":true,"properties":{"x":{"type":"string"}}}`,
		"$schema is":                     `{"$schema":"https://evil.example/meta","type":"object","properties":{"x":{"type":"string"}}}`,
		"field x: titles is":             field(`{"type":"string","titles":{"de":"x"}}`),
		"by language":                    field(`{"type":"string","titles":"x"}`),
		"bytes, and 65536":               field(`{"type":"string","title":"` + strings.Repeat("x", 65536) + `"}`),
	} {
		if _, err := catalog.CompileForm(schema); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestFieldsKeepTheOrderOfTheForm(t *testing.T) {
	var names []string
	for _, f := range compile(t, web()).Form.Fields() {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "service_name workers tls domains note" {
		t.Errorf("got %s", got)
	}
}

func TestSoftwareThatTakesOverIsRefused(t *testing.T) {
	for want, text := range map[string]string{
		`may not set "users"`:               "users: [{name: eve}]",
		`may not set "ssh_authorized_keys"`: "ssh_authorized_keys: [x]",
		`may not set "chpasswd"`:            "chpasswd: {list: x}",
		`may not set "network"`:             "network: {version: 2}",
		`may not set "hostname"`:            "hostname: other",
		`may not set "final_message"`:       "final_message: ready",
		`may not set "merge_how"`:           "merge_how: x",
		`may not set "phone_home"`:          "phone_home: {url: x}",
		"may not write /etc/sudoers.d/eve":  "write_files: [{path: /etc/sudoers.d/eve, content: x}]",
		"may not write /etc/netplan/9.yaml": "write_files: [{path: /etc/netplan/9.yaml, content: x}]",
		"may not write /etc":                "write_files: [{path: /etc, content: x}]",
		"decides who gets in":               "write_files: [{path: /home/kim/.ssh/authorized_keys, content: x}]",
		"absolute and clean":                "write_files: [{path: /srv/../etc/passwd, content: x}]",
		`a file has no "source" here`:       "write_files: [{path: /srv/x, source: {uri: 'http://x'}}]",
		"line 2: anchors":                   "packages: [a]\nruncmd: &x [a]",
		"tags (!!binary)":                   "packages: [!!binary aGk=]",
		"more than one YAML document":       "packages: [a]\n---\npackages: [b]",
		"given twice":                       "packages: [a]\npackages: [b]",
		"it is not YAML":                    "packages: [a",
		"it is a mapping":                   "#!/bin/sh\nrm -rf /",
		"packages is a list":                "packages: nginx",
		"deeper than":                       "apt: " + strings.Repeat("{a: ", 20) + "b" + strings.Repeat("}", 20),
		"bytes that are no text":            "packages: [\"a\x00\"]",
		"cannot stand here":                 "runcmd: ['echo ${form.service_name}']",
		"and not the first":                 "runcmd: [['${form.service_name}', x]]",
		"is one word of a command":          "runcmd: [[sh, -c, 'echo ${form.service_name}']]",
		"is one word":                       "runcmd: [[bash, -lc, '${form.service_name}']]",
		"goes into the content of a file":   "write_files: [{path: '/srv/${form.service_name}', content: x}]",
		`"nonsense" is no field`:            "runcmd: [[echo, '${form.nonsense}']]",
		"field note takes any text":         "runcmd: [[echo, '${form.note}']]",
	} {
		o := web()
		o.Software = []*apiv1.Software{{Name: "a", UserData: text}}
		if _, err := catalog.Compile(o); !problem.Is(err, problem.Invalid) || !strings.Contains(problem.Of(err).GetDetail(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestSoftwareThatContradictsOtherSoftwareIsRefused(t *testing.T) {
	o := web()
	o.Software = []*apiv1.Software{{Name: "a", UserData: "timezone: Asia/Seoul"}, {Name: "b", UserData: "timezone: UTC"}}
	if _, err := catalog.Compile(o); err == nil || !strings.Contains(err.Error(), "software b sets timezone to UTC, and the software before it to Asia/Seoul") {
		t.Errorf("got %v", err)
	}
	o.Software[1].UserData = "timezone: Asia/Seoul\npackages: [x]"
	compile(t, o)
}

func TestAnOfferingThatContradictsItselfNamesEachField(t *testing.T) {
	o := web()
	o.Currency, o.Lease = "", &apiv1.LeaseTerms{LongestDays: 10}
	o.Flavors = append(o.Flavors, &apiv1.OfferedFlavor{Flavor: "s1"})
	o.Software[1].Name = "nginx"
	_, err := catalog.Compile(o)
	for _, want := range []string{"currency is required", "lease.default_days is required", "flavors[2] names flavor s1 twice", "software[1] is named nginx"} {
		if !strings.Contains(problem.Of(err).GetDetail(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	o = web()
	o.Currency = "QQQ"
	if _, err := catalog.Compile(o); err == nil || !strings.Contains(err.Error(), "QQQ is no currency") {
		t.Errorf("got %v", err)
	}
}

// What several cost is what one costs, so many times, to the last unit: nothing is rounded.
func TestPricesAddUpToTheUnit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		price := rapid.Custom(func(t *rapid.T) uint64 { return rapid.Uint64Range(0, 1e11).Draw(t, "price") })
		own, flavor, disk, gib, n := price.Draw(t, "own"), price.Draw(t, "flavor"), rapid.Uint64Range(0, 1e6).Draw(t, "disk"), rapid.Uint32Range(0, 65536).Draw(t, "gib"), rapid.Uint32Range(1, 256).Draw(t, "n")
		o := &apiv1.Offering{Currency: "KRW", MonthlyPrice: fmt.Sprint(own), DiskGibMonthlyPrice: fmt.Sprint(disk)}
		got, err := catalog.MonthlyCost(o, &apiv1.OfferedFlavor{MonthlyPrice: fmt.Sprint(flavor), Size: &apiv1.Resources{DiskGib: gib}}, n)
		if want := fmt.Sprint((own + flavor + disk*uint64(gib)) * uint64(n)); err != nil || got.GetAmount() != want {
			t.Fatalf("%v and %v, not %s", got, err, want)
		}
	})
}

func TestWhatIsTooMuchToReckonWithIsRefused(t *testing.T) {
	o := &apiv1.Offering{Name: "web", Currency: "KRW", MonthlyPrice: "999999999999999", DiskGibMonthlyPrice: "999999999999999"}
	if m, err := catalog.MonthlyCost(o, &apiv1.OfferedFlavor{Size: &apiv1.Resources{DiskGib: 65536}}, 256); !problem.Is(err, problem.Invalid) {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestMoneyIsWrittenWithItsMinorUnits(t *testing.T) {
	for want, m := range map[string]*apiv1.Money{
		"12,500 KRW":    {Currency: "KRW", Amount: "12500"},
		"12.50 USD":     {Currency: "USD", Amount: "1250"},
		"0.05 USD":      {Currency: "USD", Amount: "5"},
		"1,234.567 KWD": {Currency: "KWD", Amount: "1234567"},
		"0 KRW":         {Currency: "KRW", Amount: "0"},
		"":              {},
	} {
		if got := catalog.Price(m); got != want {
			t.Errorf("%v is written %q, not %q", m, got, want)
		}
	}
}

func TestAnOfferingRunsWhereItIsOfferedAndTheGradeAllows(t *testing.T) {
	image := &apiv1.Image{Name: "tiny", Grade: apiv1.Zone_SENSITIVE}
	zone := func(name string, g apiv1.Zone_Grade) *apiv1.Zone { return &apiv1.Zone{Name: name, Grade: g} }
	o := &apiv1.Offering{Name: "web", Zones: []string{"business", "secret"}, Grades: []apiv1.Zone_Grade{apiv1.Zone_OPEN, apiv1.Zone_SENSITIVE}}
	if err := catalog.MayRunIn(o, image, zone("business", apiv1.Zone_SENSITIVE)); err != nil {
		t.Error(err)
	}
	for want, z := range map[string]*apiv1.Zone{
		"is offered for business, secret, not for zone internet":                 zone("internet", apiv1.Zone_SENSITIVE),
		"may run in zones that are open or sensitive, and zone secret is classi": zone("secret", apiv1.Zone_CLASSIFIED),
		"image tiny of offering web is sensitive, and zone business is open":     zone("business", apiv1.Zone_GRADE_UNSPECIFIED),
	} {
		if err := catalog.MayRunIn(o, image, z); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
