package cli

import (
	"strings"
	"time"

	"github.com/google/uuid"
)

// longestKey leaves room for the number of a further write: KEY.2.
const longestKey = 120

// named has an idempotency key at hand: the caller's, or one that says when it was made.
func (a *app) named() error {
	if !a.command.Flags().Changed("idempotency-key") {
		a.key = uuid.Must(uuid.NewV7()).String()
		return nil
	}
	if a.key == "" || len(a.key) > longestKey || strings.ContainsFunc(a.key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return usagef("--idempotency-key: give 1 to %d letters, digits and signs of ASCII; a UUID does well", longestKey)
	}
	return nil
}

// began is the time from which a command reckons how long something lasts: when its key was made, where that says so, since a command that is
// repeated under its key has to ask for the same. Else now.
func (a *app) began() time.Time {
	if key, err := uuid.Parse(a.key); err == nil && key.Version() == 7 {
		return time.Unix(key.Time().UnixTime())
	}
	return time.Now()
}
