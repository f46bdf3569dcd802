package link

import (
	"strings"
	"unicode/utf8"
)

// shorten returns the beginning of s, at most max bytes of whole characters: what a rule in proto/ lets cross.
func shorten(s string, max int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= max {
		return s
	}
	for !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}
