// Package shell writes words of a command line, for people who copy it.
package shell

import (
	"regexp"
	"strings"
)

// plain is what no shell reads as anything but a word.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./-]*$`)

// Quote returns a word as a shell takes it whole: as it is, where nothing in it means anything to a shell, else in single
// quotes.
func Quote(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
