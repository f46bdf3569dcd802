// Package config reads a program's one configuration struct from a YAML file. Unknown keys are errors; what the file
// does not say keeps the value the struct came with.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// Load fills into, a pointer to a struct with `yaml` tags that holds the defaults, from the file at path. An error names
// the file and the key, and for an unknown key the keys there are. On error *into may be partly filled.
func Load(path string, into any) error {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if unknown := unknownKeys(k.Raw(), reflect.TypeOf(into).Elem(), ""); len(unknown) > 0 {
		return fmt.Errorf("configuration %s: %w", path, errors.Join(unknown...))
	}
	err := k.UnmarshalWithConf("", into, koanf.UnmarshalConf{Tag: "yaml", DecoderConfig: &mapstructure.DecoderConfig{
		Result:      into,
		TagName:     "yaml",
		ErrorUnused: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			mapstructure.StringToTimeDurationHookFunc(), mapstructure.TextUnmarshallerHookFunc()),
	}})
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// unknownKeys walks the document beside the struct, so that each unknown key is told with those that could be meant.
func unknownKeys(doc map[string]any, t reflect.Type, at string) []error {
	fields := map[string]reflect.Type{}
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			fields[name] = t.Field(i).Type
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var errs []error
	for key, value := range doc {
		ft, ok := fields[key]
		if !ok {
			errs = append(errs, fmt.Errorf("unknown key %q; known here: %s", at+key, strings.Join(names, ", ")))
			continue
		}
		for ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		switch v := value.(type) {
		case map[string]any:
			if ft.Kind() == reflect.Struct {
				errs = append(errs, unknownKeys(v, ft, at+key+".")...)
			}
		case []any:
			if ft.Kind() != reflect.Slice || ft.Elem().Kind() != reflect.Struct {
				continue
			}
			for i, item := range v {
				if m, ok := item.(map[string]any); ok {
					errs = append(errs, unknownKeys(m, ft.Elem(), fmt.Sprintf("%s%s[%d].", at, key, i))...)
				}
			}
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}
