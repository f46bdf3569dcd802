package cli

import "strings"

// enumOf reads an enum's value as people write it, in lower case; the empty word is the unspecified one.
func enumOf[E ~int32](values map[string]int32, word string, zero E) (E, bool) {
	if word == "" {
		return zero, true
	}
	n, ok := values[strings.ToUpper(word)]
	return E(n), ok && n != 0
}
